from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from derp.log.coalesce import MAX_DISTINCT, MAX_KEYS, OTHER, Coalescer, Summary

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tls_failed", "http_failed", "login_refused"]),
        st.floats(0, 50),
        st.booleans(),
    )
)


def burst(coalescer, key, count, now, network=None):
    return sum(coalescer.should_log(key, now, network) for _ in range(count))


def test_the_first_few_are_logged_and_the_rest_summed_up():
    coalescer = Coalescer(limit=5, window=60)
    assert [coalescer.should_log("tls_failed", now) for now in range(7)] == [True] * 5 + [False] * 2
    assert coalescer.due(59.9) == []
    assert coalescer.due(60) == [Summary("tls_failed", 2, 60, 0)]
    assert coalescer.due(61) == []


def test_after_the_summary_a_new_window_begins():
    coalescer = Coalescer(limit=1, window=60)
    assert burst(coalescer, "tls_failed", 3, now=0) == 1
    assert coalescer.due(60) == [Summary("tls_failed", 2, 60, 0)]
    assert burst(coalescer, "tls_failed", 4, now=61) == 1
    assert coalescer.due(120) == []
    assert coalescer.due(121) == [Summary("tls_failed", 3, 60, 0)]


def test_few_events_need_no_summary_and_are_forgotten():
    coalescer = Coalescer(limit=2, window=60)
    assert burst(coalescer, "tls_failed", 2, now=0) == 2
    assert coalescer.due(60) == []
    assert burst(coalescer, "tls_failed", 2, now=60) == 2


def test_a_window_that_nobody_ended_ends_with_the_next_event():
    coalescer = Coalescer(limit=2, window=60)
    assert burst(coalescer, "tls_failed", 2, now=0) == 2
    assert burst(coalescer, "tls_failed", 3, now=60) == 2
    assert coalescer.due(120) == [Summary("tls_failed", 1, 60, 0)]


def test_a_late_summary_says_how_late_it_is():
    coalescer = Coalescer(limit=1, window=60)
    burst(coalescer, "tls_failed", 3, now=0)
    assert burst(coalescer, "tls_failed", 3, now=90) == 0
    assert coalescer.due(100) == [Summary("tls_failed", 5, 100, 0)]


def test_keys_have_windows_of_their_own():
    coalescer = Coalescer(limit=1, window=60)
    assert burst(coalescer, "tls_failed", 2, now=0) == 1
    assert burst(coalescer, "http_failed", 3, now=30) == 1
    assert coalescer.due(60) == [Summary("tls_failed", 1, 60, 0)]
    assert coalescer.due(90) == [Summary("http_failed", 2, 60, 0)]


def test_networks_are_counted_once():
    coalescer = Coalescer(limit=1, window=60)
    for network in ("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.1.0/24", None):
        coalescer.should_log("tls_failed", 0, network)
    assert coalescer.due(60) == [Summary("tls_failed", 4, 60, 2)]


def test_many_networks_are_not_told_apart():
    coalescer = Coalescer(limit=0, window=60)
    for n in range(MAX_DISTINCT * 3):
        coalescer.should_log("tls_failed", 0, str(n))
    assert coalescer.drain(1) == [Summary("tls_failed", MAX_DISTINCT * 3, 1, MAX_DISTINCT)]


def test_invented_keys_share_what_room_is_left():
    coalescer = Coalescer(limit=1, window=60)
    logged = sum(coalescer.should_log(f"key {n}", 0) for n in range(10000))
    assert logged == MAX_KEYS + 1
    assert coalescer.drain(1) == [Summary(OTHER, 10000 - logged, 1, 0)]


def test_keys_find_room_again_when_windows_are_over():
    coalescer = Coalescer(limit=1, window=60)
    for n in range(MAX_KEYS):
        coalescer.should_log(f"key {n}", 0)
    coalescer.due(60)
    burst(coalescer, "tls_failed", 2, now=60)
    assert coalescer.drain(61) == [Summary("tls_failed", 1, 1, 0)]


def test_draining_ends_windows_early():
    coalescer = Coalescer(limit=1, window=60)
    burst(coalescer, "tls_failed", 3, now=0)
    assert coalescer.drain(10) == [Summary("tls_failed", 2, 10, 0)]
    assert coalescer.drain(11) == []


@given(EVENTS, st.integers(0, 4))
def test_nothing_is_lost_or_counted_twice(events, limit):
    coalescer = Coalescer(limit=limit, window=60)
    happened, told, now = Counter(), Counter(), 0.0
    for key, pause, look in events:
        now += pause
        happened[key] += 1
        told[key] += coalescer.should_log(key, now)
        if look:
            told.update({summary.key: summary.count for summary in coalescer.due(now)})
    told.update({summary.key: summary.count for summary in coalescer.drain(now)})
    assert told == happened


@given(st.lists(st.floats(0, 30)), st.integers(1, 4))
def test_never_more_than_the_limit_in_a_window_that_is_looked_at(pauses, limit):
    coalescer = Coalescer(limit=limit, window=60)
    logged, now = [], 0.0
    for pause in pauses:
        now += pause
        coalescer.due(now)
        if coalescer.should_log("tls_failed", now):
            logged.append(now)
    # Two windows that follow each other may each have let their few through.
    for start in logged:
        assert sum(start <= at < start + 60 for at in logged) <= 2 * limit
