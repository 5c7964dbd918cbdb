"""Fixtures of the browser suite: the live page of /debug/ in a real Chromium.

`python -m pytest tests/browser` runs it. Without chromium it is skipped, and that is told at the
end. Screenshots are left in the folder that DERPER_SCREENSHOTS names.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.browser.chromium import Chromium
from tests.browser.place import TOKEN, Place, node_key
from tests.interop.rawderp import SERVER
from tests.interop.relay import Relay, TestCA, running, write_key_file
from tests.interop.untested import tell
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter, "browser", "THE LIVE PAGE IN A BROWSER")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if chromium.PROGRAM is None:
        pytest.skip("chromium is not installed")
    with chromium.running(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def workers() -> int:
    """How many workers the relay has; a test that cares sets it by parameters."""
    return 1


@pytest.fixture
def keys() -> str:
    """What there is of -policy and -verify-client-file; a test that cares sets it by parameters."""
    return "-policy"


@pytest.fixture
def place(
    browser: Chromium,
    workers: int,
    keys: str,
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
) -> Iterator[Place]:
    """A relay with a policy, or a list of keys, and an operator's token; and a browser."""
    test_ca.issue(tmp_path, "localhost")
    write_key_file(tmp_path / "derper.key", SERVER.private)
    said, token = tmp_path / keys.strip("-"), tmp_path / "token"
    said.write_text("[defaults]\n" if keys == "-policy" else f"{node_key('ida')} ida # stays\n")
    token.touch(0o600)
    token.write_text(TOKEN)
    flags = [keys, str(said), "-admin-token-file", str(token), "-workers", str(workers)]
    relay = Relay("relay", [sys.executable, "-m", "derp"], tmp_path, stun=True, flags=flags)
    with running(relay):
        yield Place(relay, browser, binaries["derpcheck"], test_ca, said)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are left."""
    folder = Path(os.environ.get("DERPER_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
