from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.acme.schedule import (
    bounded_retry_after,
    renew_at,
    wait_after,
)
from certs.errors import Failure

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("life", "expected"), [(90, 60), (6, 4)])
def test_without_a_window_two_thirds_of_the_life(life, expected):
    assert renew_at(START, START + life * DAY, None, 0.5) == START + expected * DAY


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 60.0), (0.5, 61.0), (0.75, 61.5)])
def test_in_the_window_where_chance_says(chance, expected):
    window = START + 60 * DAY, START + 62 * DAY
    assert renew_at(START, START + 90 * DAY, window, chance) == START + expected * DAY


def test_a_window_that_has_passed_means_now():
    assert renew_at(START, START + 90 * DAY, (START - DAY, START), 0.5) < START


def test_no_window_takes_the_time_for_a_second_attempt():
    window = START + 89 * DAY, START + 99 * DAY
    assert renew_at(START, START + 90 * DAY, window, 0.9) == START + 81 * DAY


@given(
    st.timedeltas(timedelta(minutes=1), timedelta(days=4000)),
    st.datetimes(timezones=st.just(UTC)),
    st.timedeltas(timedelta(0), timedelta(days=400)),
    chances,
)
def test_renewal_is_always_before_the_end(life, window_start, width, chance):
    try:
        window = window_start, window_start + width
    except OverflowError:
        return
    assert renew_at(START, START + life, window, chance) < START + life


@pytest.mark.parametrize(
    ("failure", "before", "expected"),
    [
        (Failure.TRANSIENT, 0, 5),
        (Failure.TRANSIENT, 1, 10),
        (Failure.TRANSIENT, 9, 2560),
        (Failure.TRANSIENT, 10, 3600),
        (Failure.REFUSED, 0, 120),
        (Failure.REFUSED, 4, 1920),
        (Failure.REFUSED, 5, 3600),
        (Failure.VALIDATION, 1, 240),
        (Failure.VALIDATION, 10**6, 3600),
        (Failure.SPENT, 0, 86400),
        (Failure.SPENT, 10**6, 86400),
        (Failure.BUSY, 0, 5),
        (Failure.BUSY, 10**6, 5),
    ],
)
def test_waits(failure, before, expected):
    assert wait_after(failure, before, 0.5) == expected


def test_jitter_is_a_fifth():
    assert wait_after(Failure.REFUSED, 0, 0.0) == 96
    assert wait_after(Failure.REFUSED, 0, 1.0) == pytest.approx(144)
    assert wait_after(Failure.SPENT, 0, 0.0) == pytest.approx(0.8 * 86400)
    assert max(wait_after(Failure.SPENT, 0, 0.0), bounded_retry_after(86400.0)) == 86400


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(0.0, 5), (3.0, 5), (7.5, 7.5), (86400.0, 86400), (1e9, 86400), (float("inf"), 86400)],
)
def test_never_before_retry_after_but_within_a_day(retry_after, expected):
    wait = max(wait_after(Failure.TRANSIENT, 0, 0.5), bounded_retry_after(retry_after))
    assert wait == expected


@given(
    st.sampled_from(Failure),
    st.integers(0, 10**6),
    st.none() | st.floats(0, allow_nan=False),
    chances,
)
def test_every_wait_has_an_end(failure, before, retry_after, chance):
    wait = max(wait_after(failure, before, chance), bounded_retry_after(retry_after))
    assert 4 <= wait <= 1.2 * 86400
