"""Fixtures of the release suite: `python3 noxfile.py -s release` makes the files, and runs this.

The files are in the folder that DERPER_DIST names, or else in dist/. What this machine can't do is
skipped, and told at the end.
"""

import os
from pathlib import Path

import pytest

import derp
from tests.interop.relay import REPO
from tests.interop.untested import tell
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter, "release", "A PART OF THE RELEASE'S TESTS")


@pytest.fixture(scope="session")
def dist() -> Path:
    """The folder with the files of the release."""
    folder = Path(os.environ.get("DERPER_DIST") or REPO / "dist").resolve()
    if not (folder / "SHA256SUMS").exists():
        pytest.fail(f"{folder} has no release: `python3 noxfile.py -s release`", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    return dist / f"trio_derper-{derp.__version__}-py3-none-any.whl"


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    return dist / f"trio_derper-{derp.__version__}.tar.gz"


@pytest.fixture(scope="session")
def pyz(dist: Path) -> Path:
    return dist / "derper.pyz"
