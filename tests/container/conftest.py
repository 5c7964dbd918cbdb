"""Fixtures of the container suite. `python -m pytest tests/container` runs it.

Where podman can't run a container, every test is skipped with the reason. What is skipped is told
at the end, and written to the file that DERPER_UNTESTED names. An image that can't be built, or
does not run where another does, is a failure; so is a DERPER_TEST_BASE that there is not.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.container import images
from tests.container import podman as containers
from tests.container.podman import Dock, NoPodmanError, Podman, new_name
from tests.container.sharing import common_folder, one_at_a_time, shared
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.untested import tell
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")

FOUND = pytest.StashKey[str]()
"""The base image."""


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run have."""
    return common_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest, common: Path) -> tuple[Podman, str]:
    """Podman, with what it needs here, and a base image in which it works."""
    try:
        with one_at_a_time(common / "base"):
            podman, base = images.find()
    except NoPodmanError as error:
        pytest.skip(str(error))
    except images.WrongBaseError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)
    request.config.stash[FOUND] = base
    if hasattr(request.config, "workeroutput"):
        request.config.workeroutput["base"] = base
    return podman, base


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a process of xdist's what it has found."""
    if base := getattr(node, "workeroutput", {}).get("base"):
        node.config.stash[FOUND] = base


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    base = config.stash.get(FOUND, "")
    if base:
        kept = f"; `podman rmi {base}` makes room for the Containerfile's" * (base == images.MADE)
        terminalreporter.section("base image")
        terminalreporter.line(f"{base}{kept}")
    tell(
        terminalreporter,
        "container",
        "A PART OF THE CONTAINER IMAGE'S TESTS" if base else "THE CONTAINER IMAGE",
    )


@pytest.fixture(scope="session")
def podman(found: tuple[Podman, str]) -> Podman:
    return found[0]


@pytest.fixture(scope="session")
def base(found: tuple[Podman, str]) -> str:
    return found[1]


@pytest.fixture(scope="session")
def tags(podman: Podman) -> Iterator[list[str]]:
    """Names of images that are removed at the end."""
    made: list[str] = []
    yield made
    images.remove(podman, made)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image is built from."""
    folder = tmp_path_factory.mktemp("tree")
    images.take_tree(folder)
    return folder


@pytest.fixture(scope="session")
def image(podman: Podman, base: str, tree: Path, common: Path) -> Iterator[str]:
    """The relay's image, built from this tree."""

    def build() -> str:
        tag = f"localhost/{new_name()}:ours"
        began = time.monotonic()
        images.build(podman, base, tag, tree)
        print(f"{tag} was built on {base} in {time.monotonic() - began:.0f} s")
        return tag

    with shared(common / "ours", build, lambda tag: images.remove(podman, [tag])) as tag:
        yield tag


@pytest.fixture(scope="session")
def derper_docker(podman: Podman, base: str, tags: list[str], binaries: dict[str, Path]) -> str:
    """An image that is used as derper-docker's is."""
    tag = f"localhost/{new_name()}:theirs"
    tags.append(tag)
    images.build_derper_docker(podman, base, tag, binaries["derper"])
    return tag


@pytest.fixture
def dock(podman: Podman, image: str, binaries: dict[str, Path]) -> Iterator[Dock]:
    """For containers of the relay's image; its ports are published on 127.0.0.1."""
    with containers.dock(podman, image, binaries) as made:
        yield made


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A network in which all ports are free, and from which nobody can be reached."""
    skip_unless_possible("no network where ports 80 and 443 are free")
    with closing(Namespace.make()) as made:
        yield made


@pytest.fixture
def own_dock(
    podman: Podman, image: str, binaries: dict[str, Path], space: Namespace
) -> Iterator[Dock]:
    """As `dock`, in that network, with the very ports of the image."""
    with containers.dock(podman, image, binaries, space) as made:
        yield made
