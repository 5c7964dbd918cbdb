"""Fixtures of the storms: `python3 noxfile.py -s storms`; `-- --long` has 5,000 come, on both."""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.record import said, surroundings
from bench.run import build_client
from bench.servers import BenchError, Program, raise_descriptor_limit
from tests.hostile.measure import CLIENT_CORE, SERVER_CORE
from tests.hostile.session import program
from tests.interop import golang
from tests.storms import table
from tests.storms.measure import Measured
from tests.storms.storms import STORMS, Storm

COMMAND = "python3 noxfile.py -s storms"


@dataclass
class Session:
    """What the storms of one run have in common, and what they have come to."""

    long: bool
    programs: dict[str, Program]
    load: Path
    work: Path
    results: dict[Storm, dict[str, Measured]] = field(default_factory=dict)

    def text(self) -> str:
        about = surroundings()
        for name, each in self.programs.items():
            about[name] = said([*each.command, "-version"], each.directory)
        about["command"] = f"{COMMAND}{' -- --long' if self.long else ''}"
        return table.text(self.results, about)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="5,000 clients, on both relays")
    parser.addoption(
        "--theirs", default="", metavar="COMMAND", help="the Go derper (default: it is built)"
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
    if "storm" in metafunc.fixturenames:
        long = metafunc.config.getoption("--long")
        chosen = [storm.of(long=long) for storm in STORMS if long or storm.few]
        metafunc.parametrize("storm", chosen, ids=lambda storm: storm.id)


SESSION = pytest.StashKey[Session]()


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Build what comes, and find the relays; skip all where that can't be done."""
    option = request.config.getoption
    if lacking := {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        pytest.skip(f"core {min(lacking)} is not there: relay and clients want one each")
    raise_descriptor_limit()
    try:
        load = build_client()
        theirs = option("--theirs")
        if option("--long") and not theirs:
            theirs = str(golang.build()["derper"])
    except (BenchError, golang.NoGoError) as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="derp-storms-") as work:
        programs = {"ours": program("ours", f"{sys.executable} -m derp")}
        if theirs:
            programs["theirs"] = program("theirs", theirs)
        session = Session(option("--long"), programs, load, Path(work))
        request.config.stash[SESSION] = session
        yield session


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or not session.results:
        return
    text = session.text()
    terminalreporter.section("storms")
    terminalreporter.write_line(text)
    if page := config.getoption("--into"):
        page.write_text(table.into(page.read_text(), text))
