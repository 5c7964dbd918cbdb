"""The image itself: what it says of itself, what is in it, and that it can be built again."""

from pathlib import Path
from typing import Any

import pytest

from tests.container import images
from tests.container.podman import Dock, Podman, new_name
from tests.support import derperdocker

NANOSECONDS = 1_000_000_000
MOUNTED = {"/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}
"""Where podman puts its own."""
NAMED_BY_CHANCE = {"Id", "Digest", "RepoTags", "RepoDigests", "NamesHistory"}
"""Of the image's configuration. Docker's format, which has the health check, has room for the ID of
the container in which the last step ran, and podman writes it there."""


@pytest.fixture(scope="module")
def said(podman: Podman, image: str) -> dict[str, Any]:
    return podman.inspect(image, "image")


def test_what_it_says_of_itself(said: dict[str, Any]) -> None:
    config = said["Config"]
    assert set(config["ExposedPorts"]) == {"443/tcp", "80/tcp", "3478/udp"}
    assert set(config["Volumes"]) == {"/app/certs"}
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert config["WorkingDir"] == "/app"
    assert config["Cmd"] == ["/app/derper"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "derper"
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"
    assert labels["org.opencontainers.image.description"]


def test_variables_of_derper_docker(said: dict[str, Any]) -> None:
    variables = dict(line.split("=", 1) for line in said["Config"]["Env"])
    assert {k: v for k, v in variables.items() if k.startswith("DERP_")} == derperdocker.ENVIRONMENT


def test_health_check(said: dict[str, Any]) -> None:
    check = said["Healthcheck"]
    assert check["Test"] == ["CMD", "/app/derper", "healthcheck", "-of", "1"]
    assert check["Interval"] >= 10 * NANOSECONDS
    assert check["Timeout"] >= 5 * NANOSECONDS


@pytest.fixture(scope="module")
def files(podman: Podman, base: str, image: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is in the base, and all that is in the image, by path."""
    found = []
    for what in (base, image):
        name = new_name()
        podman.do("create", "--name", name, what, "true")
        try:
            found.append(images.names_in(podman, name))
        finally:
            podman.do("rm", "--volumes", name)
    return found[0], found[1]


def test_what_it_adds(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The relay and its folders; what Python made of its own library; nothing it was built with."""
    before, after = files
    added = {path for path in after.keys() - before.keys() if not path.startswith("/app/venv/")}
    added = {path for path in added if "/__pycache__" not in path and path not in MOUNTED}
    assert added == {
        *("/app", "/app/certs", "/app/derper", "/app/entrypoint", "/app/handover.py"),
        "/app/venv",
        *("/usr/local/bin/derper", "/var/lib/derper"),
    }
    assert (
        not before.keys()
        - after.keys()
        - {"/etc/passwd-", "/etc/group-"}
        - {
            path
            for path in before
            if path.startswith(("/etc/shadow-", "/etc/gshadow-", "/var/log/"))
        }
    )
    assert not [path for path in after if path.startswith("/app/venv/") and "/pip/" in path]


def test_nobody_can_change_it(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """But for its folders, all of it is root's, and nothing lends rights."""
    _, after = files
    own = {path: entry for path, entry in after.items() if path.startswith("/app")}
    del own["/app/certs"]
    assert {(entry.uid, entry.gid) for entry in own.values()} == {(0, 0)}
    assert not [path for path, it in own.items() if not it.issym() and it.mode & 0o6022]
    state = after["/var/lib/derper"]
    assert (state.uid, state.mode & 0o777) == (65532, 0o700)


def test_it_is_the_same_when_built_again(
    podman: Podman, base: str, image: str, tree: Path, tags: list[str]
) -> None:
    """The layers have the same digests, and the configuration says the same."""
    again = f"localhost/{new_name()}:again"
    tags.append(again)
    images.build(podman, base, again, tree)
    assert images.layers_above(podman, again, base) == images.layers_above(podman, image, base)
    one, other = (
        {k: v for k, v in podman.inspect(name, "image").items() if k not in NAMED_BY_CHANCE}
        for name in (image, again)
    )
    assert one == other


def test_it_has_no_date_of_its_building(dock: Dock) -> None:
    """useradd writes one down, in days, unless it is told another."""
    shadow = dock.once("/etc/shadow", options=["--entrypoint=cat"]).stdout
    (changed,) = [line.split(":")[2] for line in shadow.splitlines() if line.startswith("derper:")]
    assert int(changed) == images.TIMESTAMP // (24 * 60 * 60)
