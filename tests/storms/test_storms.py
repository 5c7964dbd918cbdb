"""Each storm, on this relay to judge, and on the Go derper where it is compared.

One in which something was wrong is had again, up to WINDOWS times in all, and one that is right
will do: on a busy machine, clients may be too slow to say anything once they have connected. That
a stranger was let in needs no proof but one.
"""

import pytest

from bench.servers import BenchError
from tests.storms import table
from tests.storms.conftest import Session
from tests.storms.measure import Measured, measure
from tests.storms.storms import Storm
from tests.storms.verdict import LET_IN, faults

WINDOWS = 3


def test_storm(storm: Storm, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever belongs comes in, and is refused no room; no stranger does."""

    def put(relay: str) -> Measured:
        return measure(session.programs[relay], storm, session.load, session.work)

    results = session.results.setdefault(storm, {})
    if storm.in_go and "theirs" in session.programs:
        try:
            results["theirs"] = put("theirs")
        except BenchError as error:
            # It has its own faults; what counts is ours.
            tell(capsys, f"{storm.id}, theirs: {error}")
        else:
            tell(capsys, table.one_line(storm, "theirs", results["theirs"]))
    windows: list[str] = []
    for _ in range(WINDOWS):
        results["ours"] = put("ours")
        found = faults(storm, results["ours"])
        tell(capsys, table.one_line(storm, "ours", results["ours"], found))
        if not found:
            return
        windows.append(f"{'; '.join(found)}: {results['ours']}")
        if any(fault.endswith(LET_IN) for fault in found):
            break
    pytest.fail("\n".join(windows), pytrace=False)


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  {line}", end="", flush=True)
