"""Plays the files of deploy/kubernetes with podman, as far as podman takes them.

What is changed is what would do something to this machine, and what podman has no word for:

- names are the tests' own, and what an operator fills in is filled in;
- the Secret's files are a volume that has their modes, as podman gives all of them mode 0644;
- where the network is the host's, the list of ports is left out, as podman refuses it; where it is
  the pod's own, ports are published, as a Service does;
- nothing is said of where to run, and a StatefulSet is a Deployment for each of its pods.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.container.podman import HTTP, HTTPS, STUN, Container, Podman
from tests.deploy.files import DEPLOY
from tests.interop.netns import Namespace

FILES = DEPLOY / "kubernetes"
MONITORS = "9098"
PORTS = {port: int(port.partition("/")[0]) for port in (HTTPS, HTTP, STUN, MONITORS)}
PLAY_TIMEOUT = 120


def documents(name: str) -> dict[str, str]:
    """The documents of a file, by kind and name."""
    found = {}
    for part in re.split(r"(?m)^---$", (FILES / name).read_text("utf-8")):
        kind = re.search(r"(?m)^kind: (\w+)$", part)
        named = re.search(r"(?m)^  name: (\S+)$", part)
        assert kind
        assert named
        found[f"{kind[1]} {named[1]}"] = part.strip() + "\n"
    return found


def filled_in(document: str, **values: str) -> str:
    """A document with these values for variables, those that it has and others."""
    for name, value in values.items():
        setting = f"            - name: {name}\n              value: {json.dumps(value)}\n"
        old = re.compile(rf"            - name: {name}\n(?:              .*\n)+")
        if old.search(document):
            document = old.sub(lambda _, setting=setting: setting, document)
        else:
            document = document.replace("          env:\n", f"          env:\n{setting}", 1)
    return document


def for_podman(document: str, name: str, image: str, volumes: Mapping[str, str]) -> str:
    """A Deployment or StatefulSet as a Deployment `name`, with these volumes for its own."""
    text = document.replace("kind: StatefulSet\n", "kind: Deployment\n")
    text = text.replace("image: registry.example.com/derper\n", f"image: {image}\n")
    text = re.sub(r"(?m)^  name: derper$", f"  name: {name}", text)
    text = re.sub(r"(?m)^  replicas: \d+$", "  replicas: 1", text)
    for only_there in ("nodeSelector", "affinity"):
        text = re.sub(rf"      {only_there}:\n(?:        .*\n)+", "", text)
    if "hostNetwork: true" in text:
        text = re.sub(r"          ports:\n(?:            .*\n)+", "", text)
    else:
        text = re.sub(r"( +)containerPort: (\d+)\n", r"\g<0>\1hostPort: \2\n", text)
    text, mark, _ = text.partition("      volumes:\n")
    assert mark
    text += mark
    for volume, there in volumes.items():
        text += f"        - name: {volume}\n          persistentVolumeClaim:\n"
        text += f"            claimName: {there}\n"
    return text


@contextmanager
def played(
    podman: Podman, space: Namespace, name: str, document: str, hosts: Sequence[str] = ()
) -> Iterator[Container]:
    """Play a Deployment `name`; the container of its pod, for as long as the block runs.

    `hosts` are lines for its /etc/hosts, in place of a cluster's DNS.
    """
    with tempfile.TemporaryDirectory(prefix="derper-test-") as folder:
        path = Path(folder, "played.yaml")
        path.write_text(document, "utf-8")
        Path(folder, "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]), "utf-8")
        settings = configured(podman, document, Path(folder))
        own = attrs.evolve(podman, prefix=[*space.prefix, *settings])
        pod = f"{name}-pod-0"
        try:
            own.do("kube", "play", str(path), timeout=PLAY_TIMEOUT)
            yield Container(own, f"{pod}-derper", PORTS, space)
        finally:
            own.attempt("pod", "rm", "--force", "--time", "0", pod)


def configured(podman: Podman, document: str, folder: Path) -> list[str]:
    """What runs podman with what `kube play` takes from no option, and from no document.

    The options that `run` gets here; a document's sysctls, which podman ignores before 4.4.
    """
    run = list(podman.way.run)
    limits = [run[place + 1] for place, word in enumerate(run) if word == "--ulimit"]
    sysctls = re.findall(r'- name: (net\.\S+)\n +value: "(\S+)"', document)
    lines = ["[containers]", "label = false", f'base_hosts_file = "{folder}/hosts"']
    lines.append(f"default_sysctls = {json.dumps(['='.join(each) for each in sysctls])}")
    if limits:
        lines.append(f"default_ulimits = {json.dumps(limits)}")
    file = folder / "containers.conf"
    file.write_text("\n".join([*lines, ""]), "utf-8")
    return ["env", f"CONTAINERS_CONF={file}"]
