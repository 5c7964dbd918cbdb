"""Fixtures of the hostile suite.

`python3 noxfile.py -s hostile` runs it; with `-- --beside` or `-- --long`, on the Go derper, too.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.run import build_client
from bench.servers import BenchError, raise_descriptor_limit
from tests.hostile import table
from tests.hostile.attacks import ATTACKS
from tests.hostile.measure import CLIENT_CORE, SERVER_CORE
from tests.hostile.session import Session, program
from tests.interop import golang


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="all attacks on both, 10 s each")
    parser.addoption("--beside", action="store_true", help="attack the Go derper, too")
    parser.addoption(
        "--theirs", default="", metavar="COMMAND", help="the Go derper (default: it is built)"
    )
    parser.addoption(
        "--ours",
        default=f"{sys.executable} -m derp",
        metavar="COMMAND",
        help="our relay (default: this Python's `-m derp`)",
    )
    parser.addoption(
        "--into",
        type=Path,
        metavar="FILE",
        help=f"put the table between {table.BEGIN} and {table.END} in a Markdown file",
    )


def pytest_configure(config: pytest.Config) -> None:
    if page := config.getoption("--into"):
        # Before anything is measured: it would be for nothing.
        try:
            table.into(page.read_text(), "")
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--into {page}: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attack" in metafunc.fixturenames:
        long = metafunc.config.getoption("--long")
        chosen = [a.long() if long else a for a in ATTACKS if long or a.short]
        metafunc.parametrize("attack", chosen, ids=lambda attack: attack.id)


SESSION = pytest.StashKey[Session]()


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Build what attacks, and find what is attacked; skip all where that can't be done."""
    option = request.config.getoption
    if lacking := {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        pytest.skip(f"core {min(lacking)} is not there: relay and attackers want one each")
    descriptors = raise_descriptor_limit()
    try:
        load = build_client()
        theirs = option("--theirs")
        if not theirs and any(map(option, ("--beside", "--long", "--into"))):
            theirs = str(golang.build()["derper"])
    except (BenchError, golang.NoGoError) as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="derp-hostile-") as work:
        programs = {"ours": program("ours", option("--ours"))}
        if theirs:
            programs["theirs"] = program("theirs", theirs)
        session = Session(option("--long"), programs, load, Path(work), descriptors)
        request.config.stash[SESSION] = session
        yield session


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or not session.results:
        return
    text = session.text()
    terminalreporter.section("attacks")
    terminalreporter.write_line(text)
    if page := config.getoption("--into"):
        page.write_text(table.into(page.read_text(), text))
