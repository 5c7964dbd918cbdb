"""deploy/kubernetes names only what there is, and agrees with the image and with itself."""

import re
from pathlib import Path

import pytest

from derp.config import flag_table
from derp.http.message import Later, Request
from derp.http.monitoring import MonitoringBackend, route
from derp.service.drain import FLUSH_SECONDS
from derp.workers.pool import STOP_TIMEOUT
from tests.deploy.files import DEPLOY, Image, compose

HERE = DEPLOY / "kubernetes"
RELAYS = [HERE / name for name in ("hostnetwork.yaml", "mesh.yaml", "service.yaml")]
SECRET = HERE / "secret.example.yaml"

EACH = pytest.mark.parametrize("path", RELAYS, ids=lambda path: path.stem)


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def only(pattern: str, path: Path) -> str:
    """What a pattern finds, each time the same."""
    found = set(re.findall(pattern, text_of(path)))
    assert len(found) == 1, f"{path.name}: {pattern}: {found}"
    return str(found.pop())


def test_all_are_looked_at() -> None:
    assert set(HERE.iterdir()) == {*RELAYS, SECRET}


@pytest.mark.parametrize("path", [*RELAYS, SECRET], ids=lambda path: path.stem)
def test_variables_are_those_of_derper(path: Path) -> None:
    known = {flag.variable for flag in flag_table({}, root=True)}
    used = set(re.findall(r"DERP_\w+", text_of(path)))
    assert used
    assert used <= known


@EACH
def test_probes_ask_what_is_served(path: Path) -> None:
    address = only(r"name: DERP_METRICS_ADDR\n +value: (\S+)", path)
    host, _, port = address.rpartition(":")
    assert set(re.findall(r"port: (9\d+)", text_of(path))) == {port}
    # The kubelet asks the pod's address, unless it is told another: that of a host is everybody's.
    is_hosts = "hostNetwork: true" in text_of(path)
    assert host == ("127.0.0.1" if is_hosts else "")
    assert text_of(path).count(f"host: {host}\n") == (2 if is_hosts else 0)
    backend = MonitoringBackend(metrics=None, health=None)
    for probe in re.findall(r"path: (/\w+)\n", text_of(path)):
        request = Request("GET", probe, probe, "", "a", "1.1", (), "127.0.0.1")
        assert isinstance(route(backend, request), Later), probe
    # No restart cures what /healthz may tell.
    assert re.search(r"livenessProbe:\n(?: .*\n)+? +path: /metrics\n", text_of(path))
    assert re.search(r"readinessProbe:\n(?: .*\n)+? +path: /healthz\n", text_of(path))


@EACH
def test_the_user_is_the_images(path: Path) -> None:
    group = only(r"fsGroup: (\d+)", path)
    assert f"useradd --uid {group} --gid {group}" in Image().final
    assert set(re.findall(r"runAs(?:User|Group): (\d+)", text_of(path))) <= {group}


@EACH
def test_a_stop_is_given_longer_than_the_drain(path: Path) -> None:
    grace = float(only(r"terminationGracePeriodSeconds: (\d+)", path))
    assert grace >= max(2 * FLUSH_SECONDS, STOP_TIMEOUT)


@EACH
def test_ports_are_those_of_the_image(path: Path) -> None:
    ports = re.findall(r"containerPort: (\d+)\n(?: +protocol: (\w+)\n)?", text_of(path))
    named = {f"{number}/{(protocol or 'TCP').lower()}" for number, protocol in ports}
    assert named - {"9098/tcp"} == set(Image().ports)


@EACH
def test_rights_are_those_of_the_compose_file(path: Path) -> None:
    assert "drop: [ALL]\n" in text_of(path)
    assert "allowPrivilegeEscalation: false\n" in text_of(path)
    assert "readOnlyRootFilesystem: true\n" in text_of(path)
    assert "automountServiceAccountToken: false\n" in text_of(path)
    added = re.findall(r"add: \[(.*)\]", text_of(path))
    if path.stem == "service":
        assert added == []
        assert only(r'ip_unprivileged_port_start\n +value: "(\d+)"', path) == "80"
    else:
        assert [each.split(", ") for each in added] == [compose()["services.derper.cap_add"]]


@EACH
def test_no_variable_of_a_service_is_taken_for_the_relays(path: Path) -> None:
    """For a Service derp-stun, a pod would have DERP_STUN_PORT."""
    assert only(r"enableServiceLinks: (\w+)", path) == "false"


@EACH
def test_volumes_are_where_the_image_keeps_things(path: Path) -> None:
    (certs,) = Image().volumes
    assert only(r"name: certs\n +mountPath: (\S+)", path) == certs
    assert only(r"name: secret\n +mountPath: (\S+)", path) == "/etc/derper"
    # 0440: no other user may read a key. Octal, as Kubernetes reads it.
    assert only(r"defaultMode: (\S+)", path) == "0440"
    assert only(r"secretName: (\S+)", path) == "derper"
    keys = re.findall(r"value: /etc/derper/(\S+)", text_of(path))
    assert keys
    for key in keys:
        assert re.search(rf"(?m)^  {re.escape(key)}: ", text_of(SECRET)), key


def test_the_mesh_is_of_its_own_pods() -> None:
    path = HERE / "mesh.yaml"
    replicas = int(only(r"replicas: (\d+)", path))
    listed = "".join(only(r'DERP_MESH_WITH\n +value: "([^"]+)"', path).split("\\\n"))
    service = only(r"serviceName: (\S+)", path)
    domain = only(r"DERP_DOMAIN\n +value: \$\(POD_NAME\)\.(\S+)", path)
    relays = "".join(listed.split()).split(",")
    assert relays == [f"derper-{n}.{domain}/derper-{n}.{service}" for n in range(replicas)]
    # Each has a key of its own, beside its certificates.
    assert "DERP_KEY_FILE" not in text_of(path)


def test_the_placeholders_are_no_keys() -> None:
    assert re.findall(r"[0-9a-f]{64}", text_of(SECRET)) == []
    assert text_of(SECRET).count("FILL-IN") == 3
