"""The balance of the accounts against what clients counted."""

from tests.chaos.accounts import Counted, balance

STEADY = Counted(1000, [(0.0, 0), *((float(n), 10 * n) for n in range(1, 101))], [])
"""Ten bytes a second, for 100 seconds."""
QUIET = [(0.0, 0), (1.0, 1000)]


def wrong(kept: int, counted: Counted, *lost: tuple[float, float]) -> list[str]:
    return balance({"key": kept}, {"key": counted}, lost, 0).wrong


def test_to_the_byte_where_no_connection_was_cut() -> None:
    assert wrong(1000, STEADY) == []
    assert wrong(1001, STEADY) == ["accounts: key has 1001 bytes, but only 1000 were sent"]
    assert wrong(999, STEADY) == ["accounts: key has 999 bytes, of at least 1000 that were sent"]


def test_what_was_counted_when_a_process_ended_may_be_lost() -> None:
    # With a sample before and after, that is 13 seconds.
    assert wrong(870, STEADY, (50.0, 60.0)) == []
    assert wrong(860, STEADY, (50.0, 60.0))
    assert Counted(1000, QUIET, []).least([(50.0, 60.0)]) == 1000


def test_what_may_be_lost_twice_counts_once() -> None:
    assert STEADY.least([(50.0, 60.0), (52.0, 61.0)]) == STEADY.least([(50.0, 61.0)])


def test_a_cut_connection_loses_what_was_on_its_way() -> None:
    cut = Counted(1000, STEADY.samples, [50.0])
    assert 940 <= cut.least([]) < 1000
    assert wrong(950, cut) == []
    assert wrong(1001, cut)


def test_keys_of_nobody_are_found_but_for_mesh_peers() -> None:
    kept = {"key": 1000, "a": 1, "b": 1}
    assert balance(kept, {"key": STEADY}, [], 2).wrong == []
    found = balance(kept, {"key": STEADY}, [], 1)
    assert found.wrong == ["accounts: 2 keys that are no client's, of 1"]
    assert (found.sent, found.kept) == (1000, 1000)
