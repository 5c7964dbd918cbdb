from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.log.clients import PER_CLIENT, PER_NETWORK, WINDOW, ClientEvents, ClientSummary
from derp.log.coalesce import MAX_DISTINCT
from derp.relay.tokenbucket import TokenBucket
from derp.session.state import EVENT_LINES, EVENT_LINES_BURST

HOME = "192.0.2.0/24"


@pytest.fixture
def events() -> ClientEvents:
    return ClientEvents(lambda _: True)


def burst(events: ClientEvents, count: int, client: str, network: str | None, now: float) -> int:
    return sum(events.should_log("joined", client, network, now) for _ in range(count))


def test_of_one_client_a_few_are_logged(events: ClientEvents) -> None:
    assert burst(events, 100, "[alice]", HOME, 0) == PER_CLIENT
    assert burst(events, 100, "[bobby]", HOME, 1) == PER_CLIENT
    assert events.due(WINDOW - 1) == []
    assert events.due(WINDOW) == [ClientSummary("joined", 200 - 2 * PER_CLIENT, WINDOW, 2, 1)]
    assert events.due(2 * WINDOW) == []
    assert burst(events, 100, "[alice]", HOME, 2 * WINDOW) == PER_CLIENT


def test_of_one_network_some_are_logged_whoever_they_are(events: ClientEvents) -> None:
    logged = sum(burst(events, 1, f"[{n}]", HOME, 0) for n in range(1000))
    assert logged == PER_NETWORK
    assert burst(events, 1, "[other]", "198.51.100.0/24", 0) == 1
    assert events.drain(1) == [ClientSummary("joined", 1000 - PER_NETWORK, 1, MAX_DISTINCT, 1)]


def test_those_by_a_proxy_are_not_taken_for_one_network(events: ClientEvents) -> None:
    assert sum(burst(events, 1, f"[{n}]", None, 0) for n in range(1000)) == 1000
    assert burst(events, 100, "[alice]", None, 0) == PER_CLIENT
    assert events.drain(1) == [ClientSummary("joined", 100 - PER_CLIENT, 1, 1, 0)]


def test_leaves_are_apart_from_joins(events: ClientEvents) -> None:
    assert burst(events, 10, "[alice]", HOME, 0) == PER_CLIENT
    left = sum(events.should_log("left", "[alice]", HOME, 5) for _ in range(10))
    assert left == PER_CLIENT
    assert {summary.event: summary.count for summary in events.due(WINDOW)} == {
        "joined": 10 - PER_CLIENT,
        "left": 10 - PER_CLIENT,
    }


def test_a_window_without_a_rest_ends_with_the_next_event(events: ClientEvents) -> None:
    assert burst(events, PER_CLIENT, "[alice]", HOME, 0) == PER_CLIENT
    assert burst(events, PER_CLIENT + 1, "[alice]", HOME, WINDOW) == PER_CLIENT
    assert events.due(2 * WINDOW) == [ClientSummary("joined", 1, WINDOW, 1, 1)]


def test_in_all_there_are_no_more_lines_than_allowed() -> None:
    """However many keys and networks somebody has: the bound on lines, and on what is kept."""
    bucket = TokenBucket(EVENT_LINES, EVENT_LINES_BURST, 0.0)
    events = ClientEvents(bucket.allow)
    lines = 0
    for second in range(3600):
        now = float(second)
        for n in range(20):
            name = str(20 * second + n)
            lines += events.should_log("joined", name, name, now) + events.should_log(
                "left", name, name, now
            )
        lines += len(events.due(now))
        assert len(events._logged) < 2 * (EVENT_LINES_BURST + EVENT_LINES * WINDOW) + 2
    assert lines <= EVENT_LINES_BURST + EVENT_LINES * 3600 + 2 * 60


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["joined", "left"]),
            st.sampled_from(["[alice]", "[bobby]", "[carol]"]),
            st.sampled_from([HOME, "198.51.100.0/24", None]),
            st.floats(0, 50),
            st.booleans(),
        )
    ),
    st.integers(0, 20),
)
def test_nothing_is_lost_or_counted_twice(
    happening: list[tuple[str, str, str | None, float, bool]], allowed: int
) -> None:
    bucket = TokenBucket(0.01, allowed, 0.0)
    events = ClientEvents(bucket.allow)
    happened: Counter[str] = Counter()
    told: Counter[str] = Counter()
    now = 0.0
    for event, client, network, pause, look in happening:
        now += pause
        happened[event] += 1
        told[event] += events.should_log(event, client, network, now)
        if look:
            told.update({summary.event: summary.count for summary in events.due(now)})
    told.update({summary.event: summary.count for summary in events.drain(now)})
    assert told == happened
