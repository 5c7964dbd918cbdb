from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.log.tries import MAX_REMEMBERED, PER_ADDRESS, PER_NETWORK, WINDOW, Tries
from derp.relay.networks import network_of
from derp.relay.tokenbucket import TokenBucket


@pytest.fixture
def tries() -> Tries:
    return Tries(lambda _: True, lambda _: True)


def note(tries: Tries, host: str, now: float) -> tuple[int, bool]:
    return tries.note(host, network_of(host), now)


def lines(tries: Tries, host: str, count: int, now: float = 0) -> int:
    return sum(note(tries, host, now)[1] for _ in range(count))


def test_three_tries_within_ten_minutes_are_three_lines(tries: Tries) -> None:
    assert [note(tries, "192.0.2.1", now) for now in (0, 300, 599)] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    assert note(tries, "192.0.2.1", WINDOW) == (1, True)


def test_an_address_has_a_few_lines_and_is_counted_on(tries: Tries) -> None:
    assert lines(tries, "192.0.2.1", 100) == PER_ADDRESS
    assert note(tries, "192.0.2.1", WINDOW - 1) == (101, False)
    assert lines(tries, "192.0.2.2", 100) == PER_ADDRESS
    assert lines(tries, "192.0.2.1", 100, WINDOW) == PER_ADDRESS


@pytest.mark.parametrize("form", ["192.0.2.{}", "2001:db8::{:x}"])
def test_so_has_a_network(tries: Tries, form: str) -> None:
    assert sum(lines(tries, form.format(n), 100) for n in range(100)) == PER_NETWORK
    assert lines(tries, "198.51.100.1", 3) == 3


def test_many_that_come_once_leave_room_for_one_that_comes_back() -> None:
    tries = Tries(TokenBucket(0.5, 30, 0.0).allow, TokenBucket(0.5, 30, 0.0).allow)
    assert lines(tries, "192.0.2.1", 1) == 1
    crowd = [f"10.{n // 250}.{n % 250}.1" for n in range(MAX_REMEMBERED - 1)]
    assert sum(lines(tries, host, 1, 1) for host in crowd) <= 30
    assert [note(tries, "192.0.2.1", now) for now in (2, 3)] == [(2, True), (3, True)]


@pytest.mark.slow
def test_what_is_remembered_is_bounded(tries: Tries) -> None:
    for n in range(2 * MAX_REMEMBERED):
        note(tries, f"10.{n // 250}.{n % 250}.1", 0)
    assert len(tries._addresses) == len(tries._networks) == MAX_REMEMBERED
    assert note(tries, "10.0.0.1", 1) == (1, True)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.floats(0, 100))))
def test_lines_are_bounded_whoever_comes(steps: list[tuple[int, int, float]]) -> None:
    tries = Tries(TokenBucket(1, 5, 0.0).allow, TokenBucket(1, 5, 0.0).allow)
    now, logged, each = 0.0, 0, Counter[str]()
    for host, network, wait in steps:
        now += wait
        name = f"192.0.{network}.{host}"
        has_line = note(tries, name, now)[1]
        logged += has_line
        each[name] += has_line
    assert logged <= 2 * (5 + now)
    assert all(count <= PER_ADDRESS * (1 + now // WINDOW) for count in each.values())
