import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.metrics.history import SPANS, History, Past, added

MINUTE, HOUR, DAY = range(3)


def sampled(seconds: int, rate: int = 1000, begin: int = 0) -> History:
    """Sample once a second, with an even rate, and half of it to clients."""
    history = History()
    for now in range(begin, begin + seconds + 1):
        history.sample(now + 0.25, rate * (now - begin), rate // 2 * (now - begin))
    return history


def test_nothing_was_sampled() -> None:
    assert History().past() == [Past(0)] * 3


def test_the_step_that_is_not_over_does_not_count() -> None:
    history = sampled(3)
    assert history.past()[MINUTE] == Past(3, ((1000, 500),) * 3)
    assert history.past()[HOUR] == Past(0)
    history.sample(3.9, 10**9, 10**9)
    assert history.past()[MINUTE] == Past(3, ((1000, 500),) * 3)


def test_each_span_keeps_so_many_steps() -> None:
    past = sampled(2 * 86400 + 900).past()
    assert [len(each.rates) for each in past] == [span.steps for span in SPANS]
    assert [each.end for each in past] == [(2 * 86400 + 900) // span.seconds for span in SPANS]
    assert all(rates == (1000, 500) for each in past for rates in each.rates)


def test_a_late_sample_is_spread_over_the_steps_that_have_passed() -> None:
    history = sampled(2)
    history.sample(6.25, 2000 + 8000, 1000 + 400)
    assert history.past()[MINUTE] == Past(6, ((1000, 500),) * 2 + ((2000, 100),) * 4)
    history.sample(10**6, 2 * 10**9, 0)
    assert len(history.past()[MINUTE].rates) == 60


def test_the_first_step_counts_from_the_first_sample() -> None:
    history = History()
    history.sample(59.5, 0, 0)
    history.sample(60.5, 100, 50)
    assert history.past()[MINUTE] == Past(60, ((100, 50),))
    assert history.past()[HOUR] == Past(1, ((100, 50),))


@given(
    st.lists(st.tuples(st.floats(0.001, 3000), st.integers(0, 2**20), st.integers(0, 2**20))),
)
def test_no_rate_is_higher_than_the_highest_there_was(
    samples: list[tuple[float, int, int]],
) -> None:
    history, now, received, sent, highest = History(), 0.0, 0, 0, 0.0
    history.sample(now, received, sent)
    for passed, rate_in, rate_out in samples:
        now, received, sent = (
            now + passed,
            received + int(passed * rate_in),
            sent + int(passed * rate_out),
        )
        highest = max(highest, rate_in, rate_out)
        history.sample(now, received, sent)
    for span, past in zip(SPANS, history.past(), strict=True):
        assert len(past.rates) <= span.steps
        assert all(0 <= rate <= highest * 1.001 for rates in past.rates for rate in rates)


def test_what_falls_counts_as_nothing() -> None:
    history = History()
    history.sample(0, 5000, 5000)
    history.sample(1, 4000, 6000)
    assert history.past()[MINUTE] == Past(1, ((0, 1000),))


def test_processes_are_added_step_by_step() -> None:
    early, late = sampled(50).past()[MINUTE], sampled(10, 4000, begin=42).past()[MINUTE]
    assert late.end == 52
    total = added([early, late])
    assert total == Past(50, ((1000, 500),) * 42 + ((5000, 2500),) * 8)
    assert added([late, early]) == total


def test_a_process_that_has_begun_just_now_takes_nothing_away() -> None:
    early = sampled(50).past()[MINUTE]
    assert added([early, History().past()[MINUTE]]) == early
    assert added([]) == added([Past(0), Past(0)]) == Past(0)


@pytest.mark.parametrize("gap", [60, 100])
def test_a_process_that_has_hung_for_long(gap: int) -> None:
    hung, other = sampled(10).past()[MINUTE], sampled(gap + 60).past()[MINUTE]
    assert added([hung, other]) == hung


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 70), st.integers(0, 9)), min_size=1))
def test_a_sum_is_no_longer_than_its_span(begun: list[tuple[int, int, int]]) -> None:
    pasts = [sampled(seconds, rate, begin).past()[MINUTE] for begin, seconds, rate in begun]
    assert len(added(pasts).rates) <= 60
