import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.relay.tokenbucket import TokenBucket


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate=1.0, burst=3, now=10.0)
    assert [bucket.allow(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.allow(10.9)
    assert bucket.allow(11.0)
    assert not bucket.allow(11.5)


def test_no_more_than_the_burst_is_saved_up() -> None:
    bucket = TokenBucket(rate=1.0, burst=3, now=0.0)
    assert [bucket.allow(1000.0) for _ in range(4)] == [True, True, True, False]


def test_reserving_on_credit_tells_how_long_to_wait() -> None:
    bucket = TokenBucket(rate=1000.0, burst=500, now=0.0)
    assert bucket.reserve(500, 0.0) == 0.0
    assert bucket.reserve(250, 0.0) == pytest.approx(0.25)
    assert bucket.reserve(250, 0.25) == pytest.approx(0.25)
    assert bucket.reserve(100, 10.0) == 0.0


def test_an_unlimited_rate() -> None:
    bucket = TokenBucket(rate=math.inf, burst=1, now=0.0)
    assert bucket.allow(0.0)
    assert bucket.allow(0.001)
    assert bucket.reserve(1e9, 1.0) == 0.0


def test_a_clock_that_goes_backwards_gives_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=1, now=10.0)
    assert bucket.allow(10.0)
    assert not bucket.allow(5.0)
    assert not bucket.allow(10.5)
    assert bucket.allow(11.0)


@given(
    st.floats(1, 1e6),
    st.floats(1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 10)), max_size=50),
)
def test_who_waits_as_told_never_exceeds_rate_and_burst(
    rate: float, burst: float, requests: list[tuple[float, float]]
) -> None:
    now = total = 0.0
    bucket = TokenBucket(rate, burst, now)
    for tokens, idle in requests:
        now += idle
        now += bucket.reserve(tokens, now)
        total += tokens
        assert total <= burst + rate * now + 1e-3 * (1 + total)
