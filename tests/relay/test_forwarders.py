"""Through which link a key is reached, also against the original's books (multiForwarder)."""

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from derp.relay.forwarders import Forwarders
from tests.support.examples import examples

A, B, C = (bytes([n]) * 32 for n in range(3))
LINKS = ["one", "two", "three", "four"]


def test_a_key_is_reached_through_the_link_that_said_so() -> None:
    forwarders: Forwarders[str] = Forwarders()
    forwarders.add(A, "one")
    assert A in forwarders.best
    assert B not in forwarders.best
    assert forwarders.best == {A: "one"}
    assert forwarders.remove(A, "one")
    assert A not in forwarders.best
    assert not forwarders.remove(A, "one")
    assert (forwarders.created, forwarders.deleted, forwarders.delete_other) == (0, 0, 0)


def test_the_first_of_several_links_is_kept_until_it_takes_the_key_back() -> None:
    forwarders: Forwarders[str] = Forwarders()
    for link in ("one", "two", "three", "one", "two"):
        forwarders.add(A, link)
    assert forwarders.best == {A: "one"}
    assert not forwarders.remove(A, "one")
    assert forwarders.best == {A: "two"}
    # Who says so once more is the last in turn.
    forwarders.add(A, "one")
    assert not forwarders.remove(A, "two")
    assert forwarders.best == {A: "three"}
    assert not forwarders.remove(A, "three")
    assert forwarders.best == {A: "one"}
    assert forwarders.remove(A, "one")
    assert (forwarders.created, forwarders.deleted, forwarders.delete_other) == (1, 1, 0)


def test_a_client_that_moves_is_never_out_of_reach() -> None:
    """It comes there before it has left here, as far as we are told."""
    forwarders: Forwarders[str] = Forwarders()
    forwarders.add(A, "old")
    forwarders.add(A, "new")
    assert forwarders.best == {A: "old"}
    assert not forwarders.remove(A, "old")
    assert forwarders.best == {A: "new"}


def test_what_another_link_leads_to_is_not_taken_back() -> None:
    forwarders: Forwarders[str] = Forwarders()
    forwarders.add(A, "one")
    assert not forwarders.remove(A, "two")
    assert forwarders.best == {A: "one"}
    assert forwarders.delete_other == 1
    forwarders.add(A, "two")
    assert not forwarders.remove(A, "three")
    assert forwarders.delete_other == 1


def test_keys_do_not_share_their_links() -> None:
    forwarders: Forwarders[str] = Forwarders()
    forwarders.add(A, "one")
    forwarders.add(B, "two")
    assert not forwarders.remove(A, "two")
    assert forwarders.remove(B, "two")
    assert forwarders.best == {A: "one"}


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        forwarders: Forwarders[str] = Forwarders()
        forwarders.add(A, "one")
        forwarders.add(A, "two")
        forwarders.add(B, "one")
        match damage:
            case "lost best":
                del forwarders.best[A]
            case "wrong best":
                forwarders.best[A] = "two"
            case "a set of one":
                del forwarders._several[A]["two"]
            case "a set of none":
                forwarders._several[C] = {}
        return forwarders.check()

    assert damaged("nothing") == []
    for damage in ("lost best", "wrong best", "a set of one", "a set of none"):
        assert damaged(damage), damage


@attrs.define
class Original:
    """What AddPacketForwarder and RemovePacketForwarder keep, for keys not connected here.

    A key's entry is a link, or, once there were two, their numbers and which is preferred.
    """

    mesh: dict[bytes, Any] = attrs.field(factory=dict)
    created: int = 0
    deleted: int = 0
    other: int = 0

    def add(self, key: bytes, link: str) -> None:
        entry = self.mesh.get(key)
        if entry is None:
            self.mesh[key] = link
        elif isinstance(entry, str):
            if entry != link:
                self.mesh[key] = {"preferred": entry, "numbers": {entry: 0, link: 1}}
                self.created += 1
        elif link not in entry["numbers"]:
            entry["numbers"][link] = max(entry["numbers"].values()) + 1

    def remove(self, key: bytes, link: str) -> bool:
        """Return whether nothing leads to the key any more."""
        entry = self.mesh.get(key)
        if entry is None:
            return False
        if isinstance(entry, str):
            if entry != link:
                self.other += 1
                return False
            del self.mesh[key]
            return True
        numbers = entry["numbers"]
        numbers.pop(link, None)
        if entry["preferred"] == link:
            entry["preferred"] = min(numbers, key=numbers.__getitem__)
        if len(numbers) == 1:
            (self.mesh[key],) = numbers
            self.deleted += 1
        return False

    def best(self) -> dict[bytes, str]:
        return {
            key: entry if isinstance(entry, str) else entry["preferred"]
            for key, entry in self.mesh.items()
        }


class ForwardersMachine(RuleBasedStateMachine):
    """Any order of links gaining and losing keys."""

    def __init__(self) -> None:
        super().__init__()
        self.forwarders: Forwarders[str] = Forwarders()
        self.original = Original()

    @rule(key=st.sampled_from([A, B]), link=st.sampled_from(LINKS))
    def add(self, key: bytes, link: str) -> None:
        self.forwarders.add(key, link)
        self.original.add(key, link)

    @rule(key=st.sampled_from([A, B]), link=st.sampled_from(LINKS))
    def remove(self, key: bytes, link: str) -> None:
        assert self.forwarders.remove(key, link) is self.original.remove(key, link)

    @rule(link=st.sampled_from(LINKS))
    def a_link_breaks(self, link: str) -> None:
        for key in (A, B):
            self.remove(key, link)

    @invariant()
    def agrees_with_the_original(self) -> None:
        ours = self.forwarders
        assert ours.check() == []
        assert ours.best == self.original.best()
        assert (ours.created, ours.deleted, ours.delete_other) == (
            self.original.created,
            self.original.deleted,
            self.original.other,
        )
        for key in (A, B):
            assert (key in ours.best) is (key in self.original.mesh)


TestForwardersMachine = pytest.mark.slow(ForwardersMachine.TestCase)
TestForwardersMachine.settings = settings(
    max_examples=examples(60), stateful_step_count=40, deadline=None
)
