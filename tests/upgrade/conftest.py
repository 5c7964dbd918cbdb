"""Fixtures of the upgrade suite: `python3 noxfile.py -s upgrade` runs it.

`-- --from REVISION` says what the last release is.
"""

from collections.abc import Iterator

import pytest

from tests.container import images
from tests.container.conftest import base, common, found, image, podman, tree
from tests.container.podman import Podman, new_name
from tests.interop.untested import tell
from tests.support.programs import binaries
from tests.upgrade import previous

__all__ = ("base", "binaries", "common", "found", "image", "podman", "tree")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--from",
        dest="previous",
        metavar="REVISION",
        help="the last release (default: the newest tag below this commit)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter, "upgrade", "THE UPGRADE")


@pytest.fixture(scope="session")
def last_image(
    request: pytest.FixtureRequest,
    podman: Podman,
    base: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The image of the last release, built from its own tree."""
    folder = tmp_path_factory.mktemp("last")
    asked = request.config.getoption("previous")
    try:
        revision = asked or previous.last_release()
        previous.take(revision, folder)
    except previous.NoTreeError as error:
        if asked:
            pytest.fail(f"--from {asked}: {error}", pytrace=False)
        pytest.skip(str(error))
    tag = f"localhost/{new_name()}:last"
    print(f"the last release is {revision}")
    images.build(podman, base, tag, folder)
    yield tag
    images.remove(podman, [tag])
