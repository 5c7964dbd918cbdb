"""The cases: their names, which are chosen, and what the emulator is told of them."""

import pytest

from bench.wan import cases
from bench.wan.cases import CASES, QUICK, Case, choose


def test_names_are_the_cases_own():
    assert len({case.name for case in CASES}) == len(CASES)
    case = Case("tun", 40, 100, 100, 0.5, "bbr", 4)
    assert case.name == "tun-40ms-100mbit-loss0.5-bbr-x4"
    assert Case("userspace", 4, 100, 10, 0, "cubic", 1).name == (
        "userspace-4ms-100to10mbit-loss0-cubic-x1"
    )


def test_every_wanted_combination_is_there():
    for mode in cases.MODES:
        of_mode = [case for case in CASES if case.mode == mode]
        assert len(of_mode) == 3 * 3 * 2 * 2 * 2 + 3 * 2 * 2


def test_the_quick_ones_are_four():
    assert [case.name for case in choose(QUICK)] == sorted(QUICK, key=names().index)
    assert len(QUICK) == 4


def names() -> list[str]:
    return [case.name for case in CASES]


def test_patterns_choose():
    assert choose([]) == list(CASES)
    assert all(case.congestion == "bbr" for case in choose(["tun-*-bbr-*"]))
    assert len(choose(["tun-4ms-10mbit-loss0-*-x1", "tun-4ms-10mbit-loss0-bbr-*"])) == 3
    with pytest.raises(ValueError, match="no case is named tun-5ms"):
        choose(["tun-4ms-*", "tun-5ms-*"])


def test_half_of_the_round_trip_is_on_each_link():
    wire = Case("tun", 40, 100, 10, 0.5, "bbr", 1).wire(10)
    # Four ways make a round trip: two links, there and back.
    assert wire.told() == {
        "DelayNanoseconds": 10_000_000,
        "BitsPerSecond": 10e6,
        "BufferBytes": 50_000,
        "Loss": 0.005,
    }


@pytest.mark.parametrize(
    ("rtt", "rate", "seconds", "size"),
    [
        (80, 100, None, 1_000_000),
        (4, 100, None, 250_000),
        (4, 10, None, 30_000),
        (80, 100, 0.25, 3_125_000),
        (80, 10, 0.001, 30_000),
    ],
)
def test_a_buffer_has_the_round_trip_or_what_is_asked_for(rtt, rate, seconds, size):
    assert Case("tun", rtt, rate, rate, 0, "bbr", 1).wire(rate, seconds).buffer == size
