"""Which other worker has a key, also against the plainest books: all claims of all links."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from derp.relay.claims import Claims
from tests.support.examples import examples

A, B, C = (bytes([n]) * 32 for n in range(3))
LINKS = ["one", "two", "three"]


def test_the_highest_claim_wins_in_whatever_order_it_is_heard() -> None:
    for order in (["one", "two", "three"], ["three", "two", "one"], ["two", "three", "one"]):
        other_workers: Claims[str] = Claims()
        claims = {"one": 5, "two": 9, "three": 7}
        for link in order:
            other_workers.add(A, link, claims[link])
        assert other_workers.best == {A: "two"}
        assert other_workers.highest(A) == 9
        assert not other_workers.remove(A, "two")
        assert other_workers.best == {A: "three"}
        assert other_workers.highest(A) == 7
        assert not other_workers.remove(A, "one")
        assert other_workers.remove(A, "three")
        assert A not in other_workers.best
        assert other_workers.highest(A) == 0


def test_a_claim_that_is_told_again_counts() -> None:
    other_workers: Claims[str] = Claims()
    other_workers.add(A, "one", 1)
    other_workers.add(A, "one", 4)
    assert other_workers.highest(A) == 4
    other_workers.add(A, "two", 5)
    other_workers.add(A, "one", 6)
    assert other_workers.best == {A: "one"}


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        other_workers: Claims[str] = Claims()
        other_workers.add(A, "one", 1)
        other_workers.add(A, "two", 2)
        other_workers.add(B, "one", 1)
        match damage:
            case "lost claim":
                del other_workers._claims[B]
            case "lost link":
                del other_workers._several[A]["one"]
            case "wrong link":
                other_workers.best[A] = "one"
        return other_workers.check()

    assert damaged("nothing") == []
    for damage in ("lost claim", "lost link", "wrong link"):
        assert damaged(damage), damage


class ClaimsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.other_workers: Claims[str] = Claims()
        self.claims: dict[bytes, dict[str, int]] = {A: {}, B: {}, C: {}}
        self.now = 0

    @rule(key=st.sampled_from([A, B, C]), link=st.sampled_from(LINKS), late=st.integers(0, 20))
    def add(self, key: bytes, link: str, late: int) -> None:
        self.now += 1
        # No two claims are the same, and none of a link is followed by a lower one.
        claim = max(self.claims[key].get(link, 0) + 3, 3 * (self.now - late))
        claim += LINKS.index(link) - claim % 3 + 3
        self.other_workers.add(key, link, claim)
        self.claims[key][link] = claim

    @rule(key=st.sampled_from([A, B, C]), link=st.sampled_from(LINKS))
    def remove(self, key: bytes, link: str) -> None:
        known = self.claims[key].pop(link, None) is not None
        assert self.other_workers.remove(key, link) is (known and not self.claims[key])

    @invariant()
    def agrees(self) -> None:
        assert self.other_workers.check() == []
        best = {
            key: max(links, key=links.__getitem__) for key, links in self.claims.items() if links
        }
        assert self.other_workers.best == best
        for key, links in self.claims.items():
            assert self.other_workers.highest(key) == max(links.values(), default=0)
        several = {key for key, links in self.claims.items() if len(links) > 1}
        assert self.other_workers._several.keys() == several


TestClaimsMachine = pytest.mark.slow(ClaimsMachine.TestCase)
TestClaimsMachine.settings = settings(
    max_examples=examples(60), stateful_step_count=30, deadline=None
)
