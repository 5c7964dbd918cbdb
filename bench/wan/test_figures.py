"""From samples to figures."""

import pytest

from bench.wan.figures import arrived, median, pings

SAMPLES = [(10.0, 0), (11.0, 100), (13.0, 500), (14.0, 500)]


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [(10, 14, 500), (10.5, 12, 250), (11, 13, 400), (13, 14, 0), (13.5, 99, 0), (0, 11, 100)],
)
def test_bytes_between_two_times_are_interpolated(begin, end, count):
    assert arrived(SAMPLES, begin, end) == count


def test_percentiles_are_those_sent_in_the_time():
    sent = [(t / 100, t / 1000) for t in range(200)]
    found = pings(sent, 1.0, 2.0)
    assert found["count"] == 100
    assert found["p50_ms"] == pytest.approx(149)
    assert found["p99_ms"] == pytest.approx(198)
    assert found["max_ms"] == pytest.approx(199)
    assert found["lost_share"] == 0


def test_a_lost_ping_is_the_slowest():
    one_lost = [(0.0, None), *((0.0, 0.001 * n) for n in range(99))]
    assert pings(one_lost, 0, 1)["p99_ms"] == pytest.approx(98)
    two_lost = [(0.0, None), *one_lost[:-1]]
    found = pings(two_lost, 0, 1)
    assert found["p99_ms"] is None
    assert found["p50_ms"] == pytest.approx(49)
    assert found["lost_share"] == pytest.approx(0.02)


def test_no_pings_have_no_figures():
    assert pings([], 0, 1) == {
        "count": 0,
        "p50_ms": None,
        "p99_ms": None,
        "max_ms": None,
        "lost_share": None,
    }


def test_the_median_takes_none_as_the_greatest():
    assert median([]) is None
    assert median([3.0, 1.0, None]) == 3.0
    assert median([3.0, None, None]) is None
    assert median([3.0, None]) is None
