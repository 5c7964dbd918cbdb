"""One key at several workers: the hubs of two or three of them, and what they tell each other."""

from collections import deque

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from derp.relay.hub import RECLAIM_EVERY, Hub

A, B, C = (bytes([n]) * 32 for n in range(3))


@attrs.define(eq=False)
class Member:
    key: bytes
    duplicate: bool = False
    heard_from: set[bytes] = attrs.field(factory=set)


WorkerHub = Hub[Member, str, str]


@pytest.fixture
def hub() -> WorkerHub:
    return Hub()


def test_a_key_that_logs_in_at_another_worker_yields(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_sibling(A, "other", 11)
    assert hub.active == {}
    assert hub.yielded == {A: old}
    assert hub.siblings.best == {A: "other"}
    assert hub.local(A) is old
    assert old.duplicate
    assert hub.connections(A) == [old]
    assert hub.known == 1
    assert hub.is_here(A)
    assert hub.check() == []


def test_one_that_had_logged_in_before_does_not_make_it_yield(hub: WorkerHub) -> None:
    new = Member(A)
    hub.join(new, 10)
    hub.add_sibling(A, "other", 9)
    assert hub.active == {A: new}
    assert not new.duplicate
    assert hub.check() == []


def test_a_new_login_always_takes_the_key(hub: WorkerHub) -> None:
    """Even where the other worker's clock is ahead."""
    hub.add_sibling(A, "other", 1000)
    new = Member(A)
    hub.join(new, 10)
    assert hub.active == {A: new}
    assert hub.claim(A) == 1001
    assert hub.duplicate_logins == 1
    hub.add_sibling(A, "other", 2000)
    newer = Member(A)
    hub.join(newer, 11)
    assert hub.active == {A: newer}
    assert hub.claim(A) == 2001
    assert hub.yielded == {}
    assert new.duplicate
    assert newer.duplicate
    assert hub.check() == []


def test_what_is_heard_takes_it_back(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_sibling(A, "other", 20)
    assert hub.heard(old, 15)
    assert hub.active == {A: old}
    assert hub.claim(A) == 21
    assert not old.duplicate
    assert hub.check() == []


def test_it_is_taken_back_only_so_often(hub: WorkerHub) -> None:
    member = Member(A)
    hub.join(member, 10)
    hub.add_sibling(A, "other", 20)
    assert hub.heard(member, 30)
    hub.add_sibling(A, "other", 40)
    for now in (41, 1000, 30 + RECLAIM_EVERY - 1):
        assert not hub.heard(member, now)
        assert hub.yielded == {A: member}
        assert member.duplicate
    assert hub.heard(member, 30 + RECLAIM_EVERY)
    assert hub.active == {A: member}
    assert hub.claim(A) == 30 + RECLAIM_EVERY


def test_when_no_other_worker_has_it_any_longer_it_is_taken_back(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_sibling(A, "one", 20)
    hub.add_sibling(A, "two", 30)
    assert hub.remove_sibling(A, "two") == set()
    assert hub.siblings.best == {A: "one"}
    assert hub.yielded == {A: old}
    assert hub.remove_sibling(A, "one") == set()
    assert hub.active == {A: old}
    assert not old.duplicate


def test_one_that_had_it_before_does_not_get_it_when_the_last_one_leaves(hub: WorkerHub) -> None:
    member = Member(A)
    hub.join(member, 20)
    hub.add_sibling(A, "one", 10)
    hub.add_sibling(A, "two", 30)
    assert hub.yielded == {A: member}
    hub.remove_sibling(A, "two")
    assert hub.active == {A: member}
    assert hub.check() == []


def test_the_old_connection_leaves_and_nobody_thinks_that_the_key_has_gone(hub: WorkerHub) -> None:
    old, receiver = Member(A), Member(B)
    hub.join(old, 10)
    hub.join(receiver, 11)
    hub.handed_over(A, receiver)
    hub.add_sibling(A, "other", 20)
    assert hub.leave(old) == set()
    assert hub.yielded == {}
    assert hub.is_here(A)
    assert hub.check() == []
    assert hub.remove_sibling(A, "other") == {receiver}
    assert not hub.is_here(A)


def test_several_connections_yield_together(hub: WorkerHub) -> None:
    first, second = Member(A), Member(A)
    hub.join(first, 10)
    hub.join(second, 11)
    hub.add_sibling(A, "other", 20)
    assert hub.yielded == {A: second}
    assert hub.heard(first, 30)
    assert hub.active == {A: first}
    assert first.duplicate
    assert hub.check() == []
    hub.add_sibling(A, "other", 40)
    # Too soon, but among those here it is the one that spoke.
    assert not hub.heard(second, 41)
    assert hub.yielded == {A: second}
    assert hub.leave(second) == set()
    assert hub.yielded == {A: first}
    assert first.duplicate
    assert hub.check() == []
    hub.remove_sibling(A, "other")
    assert hub.active == {A: first}
    assert not first.duplicate


def test_a_lost_link_takes_its_keys_along(hub: WorkerHub) -> None:
    here, receiver = Member(A), Member(B)
    hub.join(here, 10)
    hub.join(receiver, 11)
    hub.add_sibling(A, "one", 20)
    hub.add_sibling(C, "one", 20)
    hub.add_sibling(bytes(31) + b"x", "one", 20)
    hub.handed_over(C, receiver)
    lost = hub.remove_sibling_link([A, C, bytes(31) + b"x"], "one")
    assert lost == [C, bytes(31) + b"x"]
    assert hub.awaited(lost) == [C]
    assert hub.gone(C) == {receiver}
    assert hub.active == {A: here, B: receiver}
    assert hub.check() == []


def test_a_lost_link_leaves_what_others_lead_to(hub: WorkerHub) -> None:
    hub.add_sibling(A, "one", 20)
    hub.add_sibling(A, "two", 10)
    assert hub.remove_sibling_link([A], "one") == []
    assert hub.siblings.best == {A: "two"}


def test_who_is_at_another_relay_is_not_gone_but_not_in_this_relay(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.handed_over(A, receiver)
    hub.add_sibling(A, "worker", 10)
    hub.add_forwarder(A, "relay")
    assert hub.known == 2
    assert hub.remove_sibling(A, "worker") == set()
    assert not hub.is_here(A)
    assert hub.remove_forwarder(A, "relay") == {receiver}


def test_who_moves_from_another_relay_to_another_worker_is_not_gone(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.handed_over(A, receiver)
    hub.add_forwarder(A, "relay")
    hub.add_sibling(A, "worker", 10)
    assert hub.remove_forwarder(A, "relay") == set()
    assert hub.remove_sibling(A, "worker") == {receiver}


def test_a_key_that_was_not_there_has_not_gone(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.handed_over(A, receiver)
    assert hub.remove_sibling(A, "worker") == set()


def test_the_keys_there_are(hub: WorkerHub) -> None:
    for key in (A, B):
        hub.join(Member(key), 10)
    assert set(hub.keys(local=True)) == set(hub.keys(local=False)) == {A, B}
    hub.add_sibling(A, "worker", 20)
    hub.add_sibling(C, "worker", 20)
    assert set(hub.keys(local=True)) == {A, B}
    assert set(hub.keys(local=False)) == {A, B, C}


def test_a_single_worker_claims_nothing(hub: WorkerHub) -> None:
    for key in (A, A, B):
        hub.join(Member(key))
    hub.heard(hub.connections(A)[0])
    assert not hub._claims
    assert hub.check() == []


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        hub: WorkerHub = Hub()
        for key in (A, B, C):
            hub.join(Member(key), 10)
        hub.add_sibling(A, "worker", 20)
        hub.add_sibling(B, "worker", 5)
        match damage:
            case "both":
                hub.active[A] = hub.yielded[A]
            case "neither":
                del hub.yielded[A]
            case "to nobody":
                hub.siblings.remove(A, "worker")
            case "not yielded":
                hub.siblings.add(B, "worker", 30)
            case "to an older one":
                hub._claims[A] = 30
            case "a claim to what has left":
                hub._claims[b"x" * 32] = 1
            case "wrong flag":
                hub.yielded[A].duplicate = False
            case "the workers' books":
                del hub.siblings.best[B]
        return hub.check()

    assert damaged("nothing") == []
    for damage in (
        "both",
        "neither",
        "to nobody",
        "not yielded",
        "to an older one",
        "a claim to what has left",
        "wrong flag",
        "the workers' books",
    ):
        assert damaged(damage), damage


WORKERS = 3
LINKS = ["0", "1", "2"]
Pair = tuple[int, int]
"""The worker that hears, and the one that tells."""


class WorkersMachine(RuleBasedStateMachine):
    """Three workers whose clients come, speak and go, while links come, go and are late.

    What one tells another arrives in its order; between links there is no order at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hubs: list[WorkerHub] = [Hub() for _ in range(WORKERS)]
        self.connected: list[tuple[int, Member]] = []
        self.now = RECLAIM_EVERY
        # What each link has yet to hear, and has been told so far; None where there is no link.
        self.told: dict[Pair, deque[bytes] | None] = {}
        self.present: dict[Pair, set[bytes]] = {}
        # When each key was claimed last by each worker that has it.
        self.claimed: list[dict[bytes, int]] = [{} for _ in range(WORKERS)]
        for pair in ((a, b) for a in range(WORKERS) for b in range(WORKERS) if a != b):
            self.told[pair] = deque()
            self.present[pair] = set()

    def tick(self) -> int:
        self.now += 1
        return self.now

    def tell(self, worker: int, key: bytes) -> None:
        """Tell others; as a watcher's updates do, each key once, and as it is when it is taken."""
        for (_, teller), queue in self.told.items():
            if teller == worker and queue is not None and key not in queue:
                queue.append(key)

    def hear(self, pair: Pair) -> None:
        queue = self.told[pair]
        assert queue
        hearer, teller = pair
        key, link = queue.popleft(), LINKS[teller]
        if self.hubs[teller].local(key) is not None:
            self.present[pair].add(key)
            self.hubs[hearer].add_sibling(key, link, self.hubs[teller].claim(key))
        else:
            self.present[pair].discard(key)
            self.hubs[hearer].remove_sibling(key, link)

    def connect(self, pair: Pair) -> None:
        self.told[pair] = deque(self.hubs[pair[1]].keys(local=True))

    def settle(self) -> None:
        for pair, queue in self.told.items():
            if queue is None:
                self.connect(pair)
            while self.told[pair]:
                self.hear(pair)

    @rule(worker=st.integers(0, WORKERS - 1), key=st.sampled_from([A, B]))
    def join(self, worker: int, key: bytes) -> None:
        member = Member(key)
        self.hubs[worker].join(member, self.tick())
        assert self.hubs[worker].active[key] is member
        self.connected.append((worker, member))
        self.claimed[worker][key] = self.now
        self.tell(worker, key)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker, member = found = data.draw(st.sampled_from(self.connected))
        self.connected.remove(found)
        self.hubs[worker].leave(member)
        if self.hubs[worker].local(member.key) is None:
            del self.claimed[worker][member.key]
        self.tell(worker, member.key)

    @precondition(lambda self: self.connected)
    @rule(data=st.data(), later=st.sampled_from([0, 1, RECLAIM_EVERY]))
    def speak(self, data: st.DataObject, later: int) -> None:
        self.now += later
        worker, member = data.draw(st.sampled_from(self.connected))
        if member.duplicate and self.hubs[worker].heard(member, self.tick()):
            self.claimed[worker][member.key] = self.now
            self.tell(worker, member.key)

    @rule(data=st.data())
    def hear_one(self, data: st.DataObject) -> None:
        if waiting := [pair for pair, queue in self.told.items() if queue]:
            self.hear(data.draw(st.sampled_from(waiting)))

    @rule(data=st.data())
    def lose_a_link(self, data: st.DataObject) -> None:
        hearer, teller = pair = data.draw(st.sampled_from(list(self.told)))
        hub = self.hubs[hearer]
        lost = hub.remove_sibling_link(self.present[pair], LINKS[teller])
        assert {key for key in self.present[pair] if not hub.is_here(key)} == set(lost)
        self.present[pair].clear()
        self.told[pair] = None

    @rule(data=st.data())
    def make_a_link(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(list(self.told)))
        if self.told[pair] is None:
            self.connect(pair)

    @rule()
    def all_is_heard(self) -> None:
        self.settle()
        for key in (A, B):
            holders = {
                number: claimed[key]
                for number, claimed in enumerate(self.claimed)
                if key in claimed
            }
            last = max(holders, key=holders.__getitem__, default=None)
            for number, hub in enumerate(self.hubs):
                assert hub.is_here(key) is (last is not None)
                assert (key in hub.active) is (number == last)
                if last not in {None, number}:
                    assert hub.siblings.best[key] == LINKS[last]

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def who_speaks_gets_its_packets_from_everywhere(self, data: st.DataObject) -> None:
        self.settle()
        self.now += RECLAIM_EVERY
        worker, member = data.draw(st.sampled_from(self.connected))
        if member.duplicate and self.hubs[worker].heard(member, self.tick()):
            self.claimed[worker][member.key] = self.now
            self.tell(worker, member.key)
        self.settle()
        for hub in self.hubs:
            found = hub.active.get(member.key)
            if found is None:
                found = self.hubs[int(hub.siblings.best[member.key])].local(member.key)
            assert found is member

    @invariant()
    def all_is_consistent(self) -> None:
        for number, hub in enumerate(self.hubs):
            assert hub.check() == []
            here = {member.key for worker, member in self.connected if worker == number}
            assert hub.active.keys() | hub.yielded.keys() == here
            assert {key: hub.claim(key) for key in here} == self.claimed[number]

    @invariant()
    def what_makes_a_hop_arrives(self) -> None:
        """Also where two workers yield to each other; and then it makes no other hop."""
        for hub in self.hubs:
            for key in hub.yielded:
                there = self.hubs[int(hub.siblings.best[key])]
                connected = [m for worker, m in self.connected if self.hubs[worker] is there]
                if any(member.key == key for member in connected):
                    assert there.local(key) in connected


TestWorkersMachine = WorkersMachine.TestCase
TestWorkersMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
