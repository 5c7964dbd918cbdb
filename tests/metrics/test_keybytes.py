"""Bytes by key: series never fall, are bounded in number, and lose no byte of those observed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from derp.metrics.keybytes import KEPT, OTHER_KEYS, KeyBytes

A, B, C = b"a", b"b", b"c"


def test_what_was_counted_before_is_not_counted_again() -> None:
    found = KeyBytes(2)
    found.observe("1", A, 10, 1, now=0)
    found.observe("1", A, 15, 1, now=1)
    assert found.totals() == {A: (15, 1), OTHER_KEYS: (0, 0)}


def test_the_connections_of_a_key_are_added_up_and_those_ended_stay() -> None:
    found = KeyBytes(2)
    found.observe("1", A, 10, 1, now=0)
    found.observe("2", A, 5, 5, now=0)
    found.forget("1")
    found.observe("1", A, 1, 1, now=0)  # another one under the same name
    assert found.totals()[A] == (16, 7)
    assert sorted(found.meters()) == ["1", "2"]


def test_a_number_that_falls_takes_nothing_back() -> None:
    found = KeyBytes(2)
    found.observe("1", A, 10, 10, now=0)
    found.observe("1", A, 3, 12, now=0)
    assert found.totals()[A] == (10, 12)
    found.observe("1", A, 4, 12, now=0)
    assert found.totals()[A] == (11, 12)


def test_keys_beyond_the_bound_are_summed_up() -> None:
    found = KeyBytes(1)
    for key, sent in ((A, 1), (B, 2), (C, 4)):
        found.observe(key, key, sent, 0, now=0)
    assert found.totals() == {A: (1, 0), OTHER_KEYS: (6, 0)}


def test_a_key_that_was_gone_for_long_makes_room() -> None:
    found = KeyBytes(2)
    found.observe("a", A, 1, 0, now=0)
    found.observe("b", B, 2, 0, now=0)
    found.observe("c", C, 4, 0, now=KEPT - 1)
    found.observe("a", A, 1, 0, now=KEPT - 1)
    assert found.totals() == {A: (1, 0), B: (2, 0), OTHER_KEYS: (4, 0)}
    found.observe("c", C, 12, 0, now=KEPT)
    # Not the sum of the others grows by what is dropped: a monitor would take it for traffic.
    assert found.totals() == {A: (1, 0), C: (8, 0), OTHER_KEYS: (4, 0)}


SEEN = st.lists(
    st.tuples(st.sampled_from("wxyz"), st.sampled_from([A, B, C]), st.integers(0, 50)), max_size=30
)


@given(SEEN, st.integers(0, 3))
def test_no_series_falls_and_no_byte_is_lost(seen: list[tuple[str, bytes, int]], most: int) -> None:
    found = KeyBytes(most)
    counted: Counter[tuple[str, bytes]] = Counter()
    before: dict[bytes, tuple[int, int]] = {}
    for meter, key, more in seen:
        counted[meter, key] += more
        number = counted[meter, key]
        found.observe((meter, key), key, number, 2 * number, now=0)
        totals = found.totals()
        assert len(totals) <= most + 1
        assert all(totals[each] >= before[each] for each in before)
        assert sum(sent for sent, _ in totals.values()) == sum(counted.values())
        before = totals
