"""The hub, also against a model of the original's books (clientSet, dupClientSet, clientsMesh)."""

import itertools

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from derp.relay.hub import Hub
from tests.support.examples import examples

A, B, C = (bytes([n]) * 32 for n in range(3))


@attrs.define(eq=False)
class Member:
    key: bytes
    duplicate: bool = False
    saw_src: set[bytes] = attrs.field(factory=set)


def test_a_single_connection_is_the_active_one() -> None:
    hub: Hub[Member, object, object] = Hub()
    member = Member(A)
    hub.join(member)
    assert hub.active == {A: member}
    assert not member.duplicate
    assert hub.leave(member) == set()
    assert hub.active == {}
    assert hub.check() == []


def test_the_newest_duplicate_is_active_until_another_speaks() -> None:
    hub: Hub[Member, object, object] = Hub()
    first, second = Member(A), Member(A)
    hub.join(first)
    hub.join(second)
    assert hub.active[A] is second
    assert first.duplicate
    assert second.duplicate
    assert hub.duplicate_logins == 1
    hub.note_activity(first)
    assert hub.active[A] is first
    hub.note_activity(second)
    assert hub.active[A] is second


def test_when_the_active_duplicate_leaves_the_other_takes_over() -> None:
    hub: Hub[Member, object, object] = Hub()
    first, second = Member(A), Member(A)
    hub.join(first)
    hub.join(second)
    assert hub.leave(second) == set()
    assert hub.active[A] is first
    assert not first.duplicate
    assert hub.check() == []


def test_of_silent_duplicates_the_oldest_takes_over() -> None:
    hub: Hub[Member, object, object] = Hub()
    first, second, third = Member(A), Member(A), Member(A)
    for member in (first, second, third):
        hub.join(member)
    hub.leave(third)
    assert hub.active[A] is first


def test_those_who_were_handed_packets_are_told_once() -> None:
    hub: Hub[Member, object, object] = Hub()
    sender, receiver, bystander = Member(A), Member(B), Member(C)
    for member in (sender, receiver, bystander):
        hub.join(member)
    hub.note_send_from(A, receiver)
    assert hub.leave(sender) == {receiver}

    again = Member(A)
    hub.join(again)
    assert A in receiver.saw_src
    assert hub.leave(again) == set()


def test_nobody_is_told_while_a_duplicate_stays() -> None:
    hub: Hub[Member, object, object] = Hub()
    first, second, receiver = Member(A), Member(A), Member(B)
    for member in (first, second, receiver):
        hub.join(member)
    hub.note_send_from(A, receiver)
    assert hub.leave(first) == set()
    assert hub.leave(second) == {receiver}


def test_who_has_left_is_not_told() -> None:
    hub: Hub[Member, object, object] = Hub()
    sender, receiver = Member(A), Member(B)
    hub.join(sender)
    hub.join(receiver)
    hub.note_send_from(A, receiver)
    hub.leave(receiver)
    assert hub.leave(sender) == set()
    assert hub.check() == []


def test_a_client_that_leaves_here_and_is_reachable_there_is_not_gone() -> None:
    hub: Hub[Member, object, object] = Hub()
    mover, receiver = Member(A), Member(B)
    hub.join(mover)
    hub.join(receiver)
    hub.note_send_from(A, receiver)
    hub.add_forwarder(A, "there")
    assert hub.leave(mover) == set()
    assert hub.remove_forwarder(A, "there") == {receiver}
    assert hub.remove_forwarder(A, "there") == set()


def test_a_client_that_leaves_there_and_is_connected_here_is_not_gone() -> None:
    hub: Hub[Member, object, object] = Hub()
    mover, receiver = Member(A), Member(B)
    hub.join(receiver)
    hub.add_forwarder(A, "there")
    hub.note_send_from(A, receiver)
    hub.join(mover)
    assert hub.remove_forwarder(A, "there") == set()
    assert hub.leave(mover) == {receiver}


def test_nobody_is_told_until_the_last_link_to_a_key_is_gone() -> None:
    hub: Hub[Member, object, object] = Hub()
    receiver, bystander = Member(B), Member(C)
    hub.join(receiver)
    hub.join(bystander)
    for link in ("one", "two"):
        hub.add_forwarder(A, link)
    hub.note_send_from(A, receiver)
    assert hub.remove_forwarder(A, "one") == set()
    assert hub.remove_forwarder(A, "one") == set()
    assert hub.remove_forwarder(A, "two") == {receiver}


def test_a_key_that_is_back_when_it_is_to_be_told_of_is_not_gone() -> None:
    hub: Hub[Member, object, object] = Hub()
    receiver, bystander = Member(B), Member(C)
    hub.join(receiver)
    hub.join(bystander)
    for key in (A, C):
        hub.add_forwarder(key, "one")
    hub.note_send_from(A, receiver)
    assert hub.remove_link([A, C], "one") == [A]
    hub.add_forwarder(A, "two")
    assert hub.note_peer_gone(A) == set()
    assert hub.remove_link([A], "two") == [A]
    assert hub.note_peer_gone(A) == {receiver}
    assert hub.note_peer_gone(A) == set()


def test_who_has_left_is_not_told_of_a_key_elsewhere() -> None:
    hub: Hub[Member, object, object] = Hub()
    receiver = Member(B)
    hub.join(receiver)
    hub.add_forwarder(A, "there")
    hub.note_send_from(A, receiver)
    assert hub.leave(receiver) == set()
    assert hub.remove_forwarder(A, "there") == set()
    assert hub.check() == []


def test_a_key_that_is_connected_here_and_there_is_known_once() -> None:
    hub: Hub[Member, object, object] = Hub()
    assert hub.key_count == 0
    hub.join(Member(A))
    hub.add_forwarder(A, "one")
    hub.add_forwarder(A, "two")
    hub.add_forwarder(B, "one")
    assert hub.key_count == 2


def test_all_connections_of_a_key_are_listed() -> None:
    hub: Hub[Member, object, object] = Hub()
    first, second, other = Member(A), Member(A), Member(B)
    for member in (first, second, other):
        hub.join(member)
    hub.add_forwarder(C, "there")
    assert hub.clients(A) == [first, second]
    assert hub.clients(B) == [other]
    assert hub.clients(C) == []
    hub.leave(second)
    assert hub.clients(A) == [first]


def test_the_check_looks_at_the_links_too() -> None:
    hub: Hub[Member, object, object] = Hub()
    hub.add_forwarder(A, "one")
    hub.add_forwarder(A, "two")
    assert hub.check() == []
    hub.forwarders.best[A] = "two"
    assert hub.check()


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        hub: Hub[Member, object, object] = Hub()
        first, second, receiver = Member(A), Member(A), Member(B)
        for member in (first, second, receiver):
            hub.join(member)
        hub.note_send_from(A, receiver)
        match damage:
            case "lost active":
                del hub.active[B]
            case "lost member":
                del hub.members[receiver]
            case "lost duplicates":
                del hub.duplicates[A]
            case "wrong active":
                hub.active[A] = first
            case "wrong flag":
                first.duplicate = False
            case "nobody to tell":
                hub._peer_gone_watchers[C] = set()
        return hub.check()

    assert damaged("nothing") == []
    for damage in (
        "lost active",
        "lost member",
        "lost duplicates",
        "wrong active",
        "wrong flag",
        "nobody to tell",
    ):
        assert damaged(damage), damage


class HubMachine(RuleBasedStateMachine):
    """Any order of joins, activity, deliveries and leaves, here and at other relays."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[Member, object, object] = Hub()
        self.connected: list[Member] = []
        self.history: dict[bytes, list[Member]] = {}
        self.last: dict[bytes, Member | None] = {}
        self.watchers: dict[bytes, set[Member]] = {}
        self.links: dict[bytes, list[str]] = {}
        self.delete_other = 0

    def of(self, key: bytes) -> list[Member]:
        return [member for member in self.connected if member.key == key]

    @rule(key=st.sampled_from([A, B, C]))
    def join(self, key: bytes) -> None:
        member = Member(key)
        there = self.of(key)
        self.hub.join(member)
        self.connected.append(member)
        if len(there) == 1:
            self.history[key] = [there[0]]
        elif there:
            self.history[key].append(member)
        self.last[key] = member

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def speak(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.connected))
        if member.duplicate:
            self.hub.note_activity(member)
            self.last[member.key] = member
            if self.history[member.key][-1:] != [member]:
                self.history[member.key].append(member)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        # What another relay forwards is from anybody.
        source = data.draw(st.sampled_from([A, B, C]))
        target = data.draw(st.sampled_from(self.connected))
        if source not in target.saw_src:
            self.hub.note_send_from(source, target)
            self.watchers.setdefault(source, set()).add(target)

    @rule(key=st.sampled_from([A, B, C]), link=st.sampled_from(["one", "two", "three"]))
    def add_forwarder(self, key: bytes, link: str) -> None:
        self.hub.add_forwarder(key, link)
        links = self.links.setdefault(key, [])
        if link not in links:
            links.append(link)

    @rule(key=st.sampled_from([A, B, C]), link=st.sampled_from(["one", "two", "three"]))
    def remove_forwarder(self, key: bytes, link: str) -> None:
        told = self.hub.remove_forwarder(key, link)
        links = self.links.get(key, [])
        # One of several may be unknown; one in place of another, or of a client here, may not.
        if link not in links and (len(links) == 1 or (not links and self.of(key))):
            self.delete_other += 1
        expected = set()
        if link in links:
            links.remove(link)
            if not links and not self.of(key):
                expected = self.watchers.pop(key, set())
        assert told == expected

    @rule(link=st.sampled_from(["one", "two", "three"]))
    def remove_link(self, link: str) -> None:
        keys = [key for key in (A, B, C) if link in self.links.get(key, [])]
        lost = self.hub.remove_link(keys, link)
        assert not any(self.hub.forwarders.best.get(key) is link for key in keys)
        expected = {}
        for key in keys:
            self.links[key].remove(link)
            if not self.links[key] and not self.of(key) and self.watchers.get(key):
                expected[key] = self.watchers.pop(key)
        assert {key: told for key in lost if (told := self.hub.note_peer_gone(key))} == expected

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.connected))
        key = member.key
        told = self.hub.leave(member)
        self.connected.remove(member)
        for watching in self.watchers.values():
            watching.discard(member)
        left = self.of(key)
        expected = set() if left or self.links.get(key) else self.watchers.pop(key, set())
        assert told == expected
        if self.last[key] is member:
            self.last[key] = None
        trimmed = [other for other in self.history.get(key, []) if other is not member]
        self.history[key] = [other for other, _ in itertools.groupby(trimmed)]
        if self.last[key] is None and self.history[key]:
            self.last[key] = self.history[key][-1]
        if len(left) == 1:
            self.last[key] = left[0]
            self.history[key] = []

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.hub.check() == []
        assert set(self.hub.members) == set(self.connected)
        assert self.hub.active == {m.key: self.last[m.key] for m in self.connected}
        reachable = {key: links[0] for key, links in self.links.items() if links}
        assert self.hub.forwarders.best == reachable
        assert self.hub.forwarders.delete_other == self.delete_other
        assert self.hub.key_count == len(reachable.keys() | {m.key for m in self.connected})
        for member in self.connected:
            assert member.duplicate is (len(self.of(member.key)) > 1)


TestHubMachine = pytest.mark.slow(HubMachine.TestCase)
TestHubMachine.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


@given(st.lists(st.sampled_from([A, B, C]), max_size=30), st.sets(st.sampled_from([A, B, C])))
def test_after_everybody_has_left_nothing_remains(keys: list[bytes], there: set[bytes]) -> None:
    hub: Hub[Member, object, object] = Hub()
    for key in there:
        hub.add_forwarder(key, "there")
    members = [Member(key) for key in keys]
    for member in members:
        hub.join(member)
    for source, target in itertools.permutations(members[:6], 2):
        if source.key not in target.saw_src:
            hub.note_send_from(source.key, target)
    for member in members:
        hub.leave(member)
    assert hub.key_count == len(there)
    for key in there:
        hub.remove_forwarder(key, "there")
    assert (hub.active, hub.members, hub.duplicates, hub._peer_gone_watchers) == ({}, {}, {}, {})
    assert hub.key_count == 0
