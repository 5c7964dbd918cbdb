"""Who is next, where networks take turns."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.admission.fairqueue import FairQueue


def test_networks_take_turns_and_within_one_the_first_comes_first() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.add(item[0], item)
    assert [queue.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert not queue


def test_a_newcomer_of_another_network_is_next_but_one() -> None:
    queue = FairQueue[str]()
    for number in range(1000):
        queue.add("crowd", f"stranger {number}")
    queue.pop()
    queue.add("elsewhere", "newcomer")
    assert [queue.pop() for _ in range(2)] == ["stranger 1", "newcomer"]


def test_who_is_taken_out_is_not_next() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "a2", "b1"):
        queue.add(item[0], item)
    queue.discard("a", "a1")
    queue.discard("b", "b1")
    queue.discard("b", "b1")
    queue.discard("c", "never there")
    assert queue.pop() == "a2"
    with pytest.raises(KeyError):
        queue.pop()


def test_all_at_once() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "b1", "a2"):
        queue.add(item[0], item)
    assert sorted(queue.clear()) == ["a1", "a2", "b1"]
    assert not queue


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_between_two_turns_of_a_network_no_other_has_more_than_one(
    steps: list[tuple[str, bool]],
) -> None:
    queue = FairQueue[tuple[str, int]]()
    waiting: Counter[str] = Counter()
    since: dict[str, Counter[str]] = {}
    for number, (network, is_pop) in enumerate(steps):
        if is_pop and queue:
            popped, _ = queue.pop()
            waiting[popped] -= 1
            for each, seen in since.items():
                if waiting[each] and each != popped:
                    seen[popped] += 1
                    assert seen[popped] <= 1
            since[popped] = Counter()
        else:
            if not waiting[network]:
                since[network] = Counter()
            waiting[network] += 1
            queue.add(network, (network, number))
    assert bool(queue) == any(waiting.values())
