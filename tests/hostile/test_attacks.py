"""Each attack, on this relay to judge, and on the Go derper where it is compared.

verdict.py says what is wrong, and how it is told from the noise of a machine.
"""

import pytest

from bench.servers import BenchError
from tests.hostile import table
from tests.hostile.attacks import Attack
from tests.hostile.measure import Measured, measure
from tests.hostile.session import Session
from tests.hostile.verdict import Verdict, everything, judge


def test_attack(attack: Attack, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The relay keeps what docs/security.md promises."""

    def put(relay: str) -> Measured:
        program = session.programs[relay]
        return measure(program, attack, session.load, session.work, session.seconds)

    attack = session.fitted(attack)
    results = session.results.setdefault(attack, {})
    if "theirs" in session.programs and not attack.ours_alone:
        try:
            results["theirs"] = put("theirs")
        except BenchError as error:
            # It has its own faults; what counts is ours.
            tell(capsys, f"{attack.id}, theirs: {error}")
        else:
            tell(capsys, table.one_line(attack, "theirs", results["theirs"], None))
    windows: list[Measured] = []
    verdict = Verdict.AGAIN
    while verdict is Verdict.AGAIN:
        windows.append(put("ours"))
        verdict = judge(attack, windows)
        tell(capsys, table.one_line(attack, "ours", windows[-1], verdict))
    results["ours"] = windows[-1]
    found = [everything(attack, one) for one in windows]
    if verdict is Verdict.UNKNOWN:
        pytest.skip(f"{verdict.value}: {'; '.join(found)}")
    if verdict is not Verdict.KEPT:
        pytest.fail("\n".join(found), pytrace=False)


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  {line}", end="", flush=True)
