"""When an attack counts as withstood."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.hostile.attacks import CONNECTION_BYTES, LATE, LINK, LOGGED, MIB, PENDING, Attack, Who
from tests.hostile.measure import Measured, Seen
from tests.hostile.samples import GOOD, pair
from tests.hostile.verdict import WINDOWS, Verdict, judge

ATTACK = Attack(Who.STRANGER, "requests", "requests", 0, growth=10 * MIB, cpu=0.5)
measured = partial(replace, GOOD)
WRONG = {
    "memory": measured(growth=10 * MIB + 1),
    "the log": measured(logged=LOGGED + 1),
    "CPU": measured(cpu=0.51),
    "a newcomer": measured(logins=Seen(sent=9, lost=1, p50=1.0, p99=1.0, max=1.0)),
    "late": measured(pair=pair(LATE + 1)),
}


def test_what_is_within_the_bounds_is_kept() -> None:
    assert judge(ATTACK, [GOOD]) is Verdict.KEPT


@pytest.mark.parametrize("bad", WRONG.values(), ids=WRONG)
def test_what_is_wrong_each_time_is_broken(bad: Measured) -> None:
    for windows in range(1, WINDOWS):
        assert judge(ATTACK, [bad] * windows) is Verdict.AGAIN
    assert judge(ATTACK, [bad] * WINDOWS) is Verdict.BROKEN


@pytest.mark.parametrize("bad", WRONG.values(), ids=WRONG)
def test_one_window_that_is_right_will_do(bad: Measured) -> None:
    assert judge(ATTACK, [bad, bad, GOOD]) is Verdict.KEPT


def test_lateness_that_the_machine_may_have_caused_proves_nothing() -> None:
    doubtful = measured(pair=pair(LATE + 30), waited=0.02, late=10.0)
    assert judge(ATTACK, [doubtful] * WINDOWS) is Verdict.UNKNOWN
    assert judge(ATTACK, [doubtful, doubtful, WRONG["late"]]) is Verdict.BROKEN
    beyond = measured(pair=pair(LATE + 31), waited=0.02, late=10.0)
    assert judge(ATTACK, [beyond] * WINDOWS) is Verdict.BROKEN


@pytest.mark.parametrize("bad", [measured(cpu=1.2), measured(pair=pair(3 * LATE))], ids=str)
def test_a_slow_core_has_more_time(bad: Measured) -> None:
    assert judge(ATTACK, [bad] * WINDOWS) is Verdict.BROKEN
    assert judge(ATTACK, [replace(bad, slowness=3.0)]) is Verdict.KEPT
    assert judge(ATTACK, [replace(bad, slowness=2.3)] * WINDOWS) is Verdict.BROKEN


def test_a_lost_packet_is_late_and_a_busy_machine_no_excuse() -> None:
    assert judge(ATTACK, [measured(pair=pair(10_000), waited=0.5)] * 3) is Verdict.BROKEN


@pytest.mark.parametrize("more", [{"rate": 0}, {"rate": LINK + 1}, {"who": Who.CLIENT}], ids=str)
def test_lateness_is_promised_against_strangers_on_a_slow_link_only(more: dict[str, Any]) -> None:
    assert judge(replace(ATTACK, **more), [WRONG["late"]]) is Verdict.KEPT


def test_stun_answers_count_where_the_victims_ask() -> None:
    asked = measured(stun=pair(LATE + 1))
    assert judge(ATTACK, [asked]) is Verdict.KEPT
    asking = Attack(Who.STRANGER, "stun-junk", "", 1, stun=True)
    assert judge(asking, [asked] * WINDOWS) is Verdict.BROKEN


def test_thousands_of_networks_may_keep_newcomers_out() -> None:
    assert judge(replace(ATTACK, spread=True), [WRONG["a newcomer"]]) is Verdict.KEPT


def test_connections_have_memory_of_their_own() -> None:
    grown = measured(growth=ATTACK.growth + 100 * CONNECTION_BYTES)
    assert judge(ATTACK, [grown]) is Verdict.AGAIN
    assert judge(replace(ATTACK, count=100), [grown]) is Verdict.KEPT


def test_strangers_have_no_more_than_is_for_all_of_them() -> None:
    full = measured(growth=PENDING + 1)
    assert judge(replace(ATTACK, count=1 << 20), [full]) is Verdict.AGAIN
    assert judge(replace(ATTACK, count=1 << 20, who=Who.CLIENT), [full]) is Verdict.KEPT


REFUSED = Attack(Who.STRANGER, "strangers", "", 300, refused=True)
OUTSIDE = Seen(sent=3, lost=3, p50=1.0, p99=1.0, max=1.0)


@pytest.mark.parametrize(
    "bad",
    [
        measured(admitted=1, logins=OUTSIDE),
        measured(logins=Seen(sent=3, lost=2, p50=1.0, p99=1.0, max=1.0)),
        measured(logins=OUTSIDE, notes={"victims: the receiver: EOF": 1}),
        measured(logins=OUTSIDE, tracebacks=1),
    ],
    ids=["a stranger is admitted", "a newcomer is", "a victim is disconnected", "a traceback"],
)
def test_once_is_enough_for_what_must_not_be(bad: Measured) -> None:
    assert judge(REFUSED, [measured(logins=OUTSIDE)]) is Verdict.KEPT
    assert judge(REFUSED, [bad]) is Verdict.BROKEN
