"""The books: each finds what it is for, and nothing else."""

import attrs
import pytest

from tests.chaos.books import Reading, leaked, outgrown, unbalanced

BALANCED = Reading(
    belonging=frozenset({0, 1, 2, 7}),
    inside=frozenset({0, 1, 2, 7}),
    here=[0, 1, 2, 3],
    figures={
        "derp_current_connections": 4,
        "derp_clients_local": 4,
        "derp_clients_remote": 2,
        "derp_watchers": 1,
        "derper_workers": 2,
    },
    consistent=True,
    peers=1,
    keys={0: "a", 1: "b", 2: "c", 3: "d"},
    listed=["a", "b", "c"],
    workers=2,
)


def test_nothing_is_found_where_all_balances() -> None:
    assert unbalanced(BALANCED) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"belonging": frozenset({0, 1, 2, 3, 7})}, "clients: 3 belong in, and are out"),
        ({"belonging": frozenset({0, 1, 2})}, "clients: 7 don't belong in, and are in"),
        ({"consistent": False}, "check: /debug/check finds the relay inconsistent"),
        ({"listed": ["a", "b", "c", "c"]}, "clients listed: one of them twice, or unknown"),
        ({"listed": ["a", "b"]}, "clients listed: 2 are connected, and not listed"),
        ({"listed": ["a", "b", "c", "d"]}, "clients listed: 3 are listed, and not connected"),
        ({"workers": 3}, "gauges: derper_workers is 2, and has to be 3"),
    ],
)
def test_what_does_not_balance_is_named(changes: dict[str, object], found: str) -> None:
    assert unbalanced(attrs.evolve(BALANCED, **changes)) == [found]


@pytest.mark.parametrize("name", BALANCED.figures)
def test_each_gauge_is_a_book(name: str) -> None:
    figures = {**BALANCED.figures, name: 9}
    (found,) = unbalanced(attrs.evolve(BALANCED, figures=figures))
    assert found.startswith(f"gauges: {name} is 9, and has to be ")
    del figures[name]
    assert unbalanced(attrs.evolve(BALANCED, figures=figures)) == [f"gauges: there is no {name}"]


def test_the_go_derper_has_fewer_books() -> None:
    figures = {name: n for name, n in BALANCED.figures.items() if name != "derper_workers"}
    assert unbalanced(attrs.evolve(BALANCED, figures=figures, listed=None, workers=0)) == []


def test_memory_and_descriptors_may_grow_a_little() -> None:
    assert outgrown(100 << 20, 157 << 20) == []
    assert outgrown(100 << 20, 158 << 20)
    assert leaked(100, 120) == []
    assert leaked(100, 121)
