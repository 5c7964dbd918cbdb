"""Fixtures of the hostile suite. `python3 noxfile.py -s hostile` runs it, `-- --long` longer."""

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import golang
import pytest
import table
from attacks import ATTACKS, Attack
from measure import CLIENT_CORE, SERVER_CORE, Measured
from run import ROOT, build_client, said, surroundings
from servers import BenchError, Program, raise_descriptor_limit

SHORT_SECONDS, LONG_SECONDS = 1.0, 10.0
COMMAND = "python3 noxfile.py -s hostile"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="all attacks, 10 s each, at full count")
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
        chosen = [attack for attack in ATTACKS if long or attack.short]
        metafunc.parametrize("attack", chosen, ids=lambda attack: attack.id)


@dataclass
class Session:
    """What the attacks of one run have in common, and what they have come to."""

    long: bool
    programs: dict[str, Program]
    load: Path
    work: Path
    results: dict[Attack, dict[str, Measured]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return LONG_SECONDS if self.long else SHORT_SECONDS

    def text(self) -> str:
        """Return the tables and where they come from."""
        about = surroundings()
        for name, program in self.programs.items():
            about[name] = said([*program.command, "-version"], program.directory)
        about["command"] = f"{COMMAND}{' -- --long' if self.long else ''}"
        tables = table.tables(ATTACKS, self.results, long=self.long)
        return f"{tables}\n\n{table.origin(about, self.results, self.seconds)}"


SESSION = pytest.StashKey[Session]()


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Build what attacks, and find what is attacked; skip all where that can't be done."""
    option = request.config.getoption
    if lacking := {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        pytest.skip(f"core {min(lacking)} is not there: relay and attackers want one each")
    raise_descriptor_limit()
    try:
        load = build_client()
        theirs = option("--theirs") or str(golang.build()["derper"])
    except (BenchError, golang.NoGoError) as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="derp-hostile-") as work:
        programs = {
            "theirs": Program("theirs", found(theirs), ROOT),
            "ours": Program("ours", found(option("--ours")), ROOT),
        }
        session = Session(option("--long"), programs, load, Path(work))
        request.config.stash[SESSION] = session
        yield session


def found(command: str) -> list[str]:
    words = shlex.split(command)
    executable = shutil.which(words[0])
    assert executable, f"{command}: there is no such program"
    return [os.path.abspath(executable), *words[1:]]  # noqa: PTH100 -- a venv's links must stay


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
