"""What counts as a fault of a storm, how the table shows it, and who comes."""

from dataclasses import replace

import pytest

from tests.hostile.measure import Seen
from tests.storms import table
from tests.storms.crowd import crowd
from tests.storms.measure import Kind, Measured
from tests.storms.sources import MAKE, Count
from tests.storms.storms import STORMS, Asked, Storm
from tests.storms.verdict import faults

STORM = Storm(Asked.URL, "a URL", count=20)
BELONG = Kind(20, 20, 20, 20, 0, {}, 1, 0.5, 0.9, 1.0)
STRANGERS = Kind(2, 0, 0, 0, 0, {"login: closed": 7}, 0, 0.0, 0.0, 0.0)
GOOD = Measured(
    belong=BELONG,
    strangers=STRANGERS,
    pair=Seen(sent=500, lost=0, p50=0.1, p99=2.0, max=3.0),
    asked=(Count(22, 4),),
    cpu=0.1,
    memory=30_000_000,
    peak=40_000_000,
    waited=0.0,
    late=0.0,
    ends={"reason=not_admitted": 7},
    tracebacks=0,
    broken={},
)


def test_a_good_one_has_no_fault() -> None:
    assert faults(STORM, GOOD) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (replace(GOOD, belong=replace(BELONG, here=19)), "1 of 20 that belong are not in"),
        (replace(GOOD, belong=replace(BELONG, lost=1)), "1 that belong were disconnected"),
        (replace(GOOD, strangers=replace(STRANGERS, ever=1)), "1 of 2 strangers were let in"),
        (replace(GOOD, ends={"reason=no_room": 3}), "reason=no_room: 3"),
        (
            replace(GOOD, ends={"source=url,outcome=no_room": 3}),
            "source=url,outcome=no_room: 3",
        ),
        (replace(GOOD, tracebacks=1), "1 tracebacks in the log"),
        (replace(GOOD, broken={"the sender: EOF": 1}), "the sender: EOF: 1"),
        (
            replace(GOOD, pair=replace(GOOD.pair, lost=2)),
            "2 packets of those who were there before were lost",
        ),
    ],
)
def test_what_is_wrong_is_said(bad: Measured, said: str) -> None:
    assert faults(STORM, bad) == [said]


def test_a_slow_source_may_have_no_time_for_all_at_once() -> None:
    slow = replace(STORM, is_slow=True)
    assert faults(slow, replace(GOOD, ends={"source=url,outcome=no_room": 3})) == []


def test_the_table_has_a_row_for_each_relay() -> None:
    late = replace(GOOD, belong=replace(BELONG, here=19, last=0.0, refused={"TLS: closed": 4}))
    found = table.rows({STORM: {"theirs": late, "ours": GOOD}})
    assert [row[1] for row in found] == ["Go derper", "this relay"]
    assert found[0][2:6] == ("20 + 2", "0.5 / 1 not in", "4", "0")
    assert found[1][2:] == ("20 + 2", "0.5 / 1.0", "0", "0", "22", "30 to 40", "2.0")


def test_everything_that_can_be_asked_has_a_storm() -> None:
    assert {storm.asked for storm in STORMS} == set(Asked) == set(MAKE)
    assert len({storm.id for storm in STORMS}) == len(STORMS)


def test_who_comes() -> None:
    comers = crowd(50, 5)
    assert len({comer.public for comer in comers}) == len({c.address for c in comers}) == 55
    assert [comer.belongs for comer in comers].count(False) == 5
