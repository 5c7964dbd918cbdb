"""How long is waited before the next try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.net.backoff import Backoff


def test_longer_after_each_failure():
    backoff = Backoff(chance=lambda: 0.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert [backoff.next() for _ in range(2)] == [1, 2]


def test_with_jitter():
    backoff = Backoff(chance=lambda: 1.0)
    assert [backoff.next() for _ in range(7)] == [0.75, 1.5, 3, 6, 12, 22.5, 22.5]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_never_at_once_and_never_long(chances: list[float]):
    backoff = Backoff(chance=iter(chances).__next__)
    waits = [backoff.next() for _ in chances]
    assert all(0.75 <= wait <= 30 for wait in waits)


def test_two_relays_drift_apart():
    one, other = Backoff(), Backoff()
    assert [one.next() for _ in range(5)] != pytest.approx([other.next() for _ in range(5)])


def test_with_other_bounds() -> None:
    backoff = Backoff(lambda: 0.0, first=0.1, longest=1.0)
    assert [backoff.next() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])
    backoff.reset()
    assert backoff.next() == pytest.approx(0.1)
