"""The hub, also against a model that keeps the original's books (Go: clientSet, dupClientSet)."""

import itertools

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from derp.relay.hub import Hub

A, B, C = (bytes([n]) * 32 for n in range(3))


@attrs.define(eq=False)
class Member:
    key: bytes
    duplicate: bool = False
    heard_from: set[bytes] = attrs.field(factory=set)


def test_a_single_connection_is_the_active_one() -> None:
    hub: Hub[Member, object] = Hub()
    member = Member(A)
    hub.join(member)
    assert hub.active == {A: member}
    assert not member.duplicate
    assert hub.leave(member) == set()
    assert hub.active == {}
    assert hub.check() == []


def test_the_newest_duplicate_is_active_until_another_speaks() -> None:
    hub: Hub[Member, object] = Hub()
    first, second = Member(A), Member(A)
    hub.join(first)
    hub.join(second)
    assert hub.active[A] is second
    assert first.duplicate
    assert second.duplicate
    assert hub.duplicate_logins == 1
    hub.heard(first)
    assert hub.active[A] is first
    hub.heard(second)
    assert hub.active[A] is second


def test_when_the_active_duplicate_leaves_the_other_takes_over() -> None:
    hub: Hub[Member, object] = Hub()
    first, second = Member(A), Member(A)
    hub.join(first)
    hub.join(second)
    assert hub.leave(second) == set()
    assert hub.active[A] is first
    assert not first.duplicate
    assert hub.check() == []


def test_of_silent_duplicates_the_oldest_takes_over() -> None:
    hub: Hub[Member, object] = Hub()
    first, second, third = Member(A), Member(A), Member(A)
    for member in (first, second, third):
        hub.join(member)
    hub.leave(third)
    assert hub.active[A] is first


def test_those_who_were_handed_packets_are_told_once() -> None:
    hub: Hub[Member, object] = Hub()
    sender, receiver, bystander = Member(A), Member(B), Member(C)
    for member in (sender, receiver, bystander):
        hub.join(member)
    hub.handed_over(A, receiver)
    assert hub.leave(sender) == {receiver}

    again = Member(A)
    hub.join(again)
    assert A in receiver.heard_from
    assert hub.leave(again) == set()


def test_nobody_is_told_while_a_duplicate_stays() -> None:
    hub: Hub[Member, object] = Hub()
    first, second, receiver = Member(A), Member(A), Member(B)
    for member in (first, second, receiver):
        hub.join(member)
    hub.handed_over(A, receiver)
    assert hub.leave(first) == set()
    assert hub.leave(second) == {receiver}


def test_who_has_left_is_not_told() -> None:
    hub: Hub[Member, object] = Hub()
    sender, receiver = Member(A), Member(B)
    hub.join(sender)
    hub.join(receiver)
    hub.handed_over(A, receiver)
    hub.leave(receiver)
    assert hub.leave(sender) == set()
    assert hub.check() == []


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        hub: Hub[Member, object] = Hub()
        first, second, receiver = Member(A), Member(A), Member(B)
        for member in (first, second, receiver):
            hub.join(member)
        hub.handed_over(A, receiver)
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
                hub._told_when_gone[C] = set()
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
    """Any order of joins, activity, deliveries and leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[Member, object] = Hub()
        self.connected: list[Member] = []
        self.history: dict[bytes, list[Member]] = {}
        self.last: dict[bytes, Member | None] = {}
        self.watchers: dict[bytes, set[Member]] = {}

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
            self.hub.heard(member)
            self.last[member.key] = member
            if self.history[member.key][-1:] != [member]:
                self.history[member.key].append(member)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        source, target = (data.draw(st.sampled_from(self.connected)) for _ in range(2))
        if source.key not in target.heard_from:
            self.hub.handed_over(source.key, target)
            self.watchers.setdefault(source.key, set()).add(target)

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
        expected = set() if left else self.watchers.pop(key, set())
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
        for member in self.connected:
            assert member.duplicate is (len(self.of(member.key)) > 1)


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.sampled_from([A, B, C]), max_size=30))
def test_after_everybody_has_left_nothing_remains(keys: list[bytes]) -> None:
    hub: Hub[Member, object] = Hub()
    members = [Member(key) for key in keys]
    for member in members:
        hub.join(member)
    for source, target in itertools.permutations(members[:6], 2):
        if source.key not in target.heard_from:
            hub.handed_over(source.key, target)
    for member in members:
        hub.leave(member)
    assert (hub.active, hub.members, hub.duplicates, hub._told_when_gone) == ({}, {}, {}, {})
