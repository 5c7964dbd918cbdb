"""The files for Kubernetes, played by podman: they start relays that serve, with few rights."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing

import attrs
import pytest

from tests.container.contents import certificate, key_file
from tests.container.kubernetes import (
    MONITORS,
    documents,
    filled_in,
    for_podman,
    played,
)
from tests.container.podman import Container, Dock, File, new_name
from tests.interop.netns import Namespace, link, skip_unless_possible
from tests.interop.rawderp import Key
from tests.interop.relay import TestCA

NAME = "derp.example.com"
KEY = Key.named("a relay in a cluster")
GROUP = 65532
"""fsGroup, to which a cluster gives the files of volumes."""


def secret_volume(dock: Dock, files: Mapping[str, bytes]) -> str:
    """As a cluster mounts a Secret with defaultMode 0440: root's, and readable to the group."""
    return dock.volume({name: File(content, 0, 0o440, GROUP) for name, content in files.items()})


def given_to_group(dock: Dock, files: Mapping[str, File]) -> str:
    """A volume as a cluster mounts it for fsGroup: that group may read and write everything."""
    given = {
        name: attrs.evolve(file, group=GROUP, mode=file.mode | 0o060)
        for name, file in files.items()
    }
    return dock.volume(given, owner=GROUP, mode=0o2775)


def answer(relay: Container, path: str) -> tuple[int, bytes]:
    """What a probe of the kubelet gets."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=30)
    connection.sock = relay.dial(MONITORS)
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def check(relay: Container, dock: Dock, ca: TestCA) -> None:
    """It serves Go's clients under the Secret's key, and answers what the probes ask."""
    assert relay.identity(NAME) == KEY.public.hex()
    dock.talk(relay, {"HostName": NAME}, trust=ca.pem)
    assert dock.stun(relay)["mapped"]
    status, body = answer(relay, "/healthz")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    assert answer(relay, "/metrics")[0] == 200
    listed = relay.run("derper", "clients")
    assert listed.returncode == 0, listed
    proc = relay.process()
    assert set(proc["Uid"].split()) == {"65532"}
    assert proc["NoNewPrivs"] == "1"


def deployed(file: str, dock: Dock, ca: TestCA, key: bytes) -> tuple[str, str]:
    """A name, and a Deployment of that name with a certificate by hand, and a key."""
    name = new_name()
    volumes = {
        "certs": given_to_group(dock, certificate(ca, NAME)),
        "secret": secret_volume(dock, {"derper.key": key}),
        "run": given_to_group(dock, {}),
    }
    text = filled_in(
        documents(file)["Deployment derper"], DERP_DOMAIN=NAME, DERP_CERT_MODE="manual"
    )
    return name, for_podman(text, name, dock.image, volumes)


def test_with_the_hosts_network(own_dock: Dock, space: Namespace, test_ca: TestCA) -> None:
    name, text = deployed("hostnetwork.yaml", own_dock, test_ca, key_file(KEY))
    with played(own_dock.podman, space, name, text) as relay:
        check(relay, own_dock, test_ca)
        assert int(relay.process()["CapEff"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE"
        assert relay.stop() == 0


def test_with_a_network_of_its_own(own_dock: Dock, space: Namespace, test_ca: TestCA) -> None:
    name, text = deployed("service.yaml", own_dock, test_ca, key_file(KEY))
    with played(own_dock.podman, space, name, text) as relay:
        check(relay, own_dock, test_ca)
        assert int(relay.process()["CapEff"], 16) == 0
        assert relay.stop() == 0


def test_the_placeholder_is_no_key(own_dock: Dock, space: Namespace, test_ca: TestCA) -> None:
    """Who forgets to fill in the Secret has no relay whose key everybody knows."""
    secret = documents("secret.example.yaml")["Secret derper"]
    found = re.search(r"derper\.key: \|\n +(\{.*\})\n", secret)
    assert found
    name, text = deployed("hostnetwork.yaml", own_dock, test_ca, found[1].encode())
    with played(own_dock.podman, space, name, text) as relay:
        relay.wait_for_log(r"key file '/etc/derper/derper\.key': PrivateKey: ")


@pytest.fixture
def machines() -> Iterator[list[Namespace]]:
    """Two machines of a cluster."""
    skip_unless_possible("no cluster of two machines")
    with ExitStack() as stack:
        both = [stack.enter_context(closing(Namespace.make())) for _ in range(2)]
        link(both[0], "eth0", both[1], "eth0")
        for number, machine in enumerate(both):
            machine.address("eth0", f"10.77.0.{number + 1}/24")
        yield both


def test_a_mesh(dock: Dock, machines: list[Namespace], test_ca: TestCA) -> None:
    """Each pod of the StatefulSet on a machine of its own: they find each other, and mesh."""
    statefulset = documents("mesh.yaml")["StatefulSet derper"]
    key = secret_volume(dock, {"derp-mesh.key": b"5" * 64})
    hosts = [f"10.77.0.{number + 1} derper-{number}.derper-mesh" for number in range(len(machines))]
    with ExitStack() as stack:
        relays = []
        for number, machine in enumerate(machines):
            pod, name = f"derper-{number}", new_name()
            files = certificate(test_ca, f"{pod}.example.com")
            files["ca.pem"] = File(test_ca.pem.read_bytes(), mode=0o644)
            text = filled_in(
                statefulset,
                POD_NAME=pod,
                DERP_CERT_MODE="manual",
                SSL_CERT_FILE="/app/certs/ca.pem",
            )
            # Kubernetes puts in what a variable before has.
            text = text.replace("$(POD_NAME)", pod)
            run = given_to_group(dock, {})
            volumes = {"certs": dock.volume(files), "secret": key, "run": run}
            text = for_podman(text, name, dock.image, volumes)
            relays.append(stack.enter_context(played(dock.podman, machine, name, text, hosts)))
        for number, relay in enumerate(relays):
            relay.wait_for_log(rf"msg=meshed relay=derper-{1 - number}\.example\.com")
            assert answer(relay, "/healthz")[0] == 200
