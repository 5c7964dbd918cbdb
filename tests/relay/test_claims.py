"""One key at several workers: in the end all agree on who has it, also where clocks can't tell.

Claims tie on purpose here: by clocks that stand still, and by going beyond the same claim.
"""

from collections import deque
from itertools import permutations

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from derp.config.checks import MAX_WORKERS
from derp.relay.claims import WORKER_BITS, next_claim
from derp.relay.hub import RECLAIM_EVERY, Hub

A, B = (bytes([n]) * 32 for n in range(2))
START = 4 * RECLAIM_EVERY
"""When a clock begins; 0 would stand for a relay of one worker."""


@attrs.define(eq=False)
class Member:
    key: bytes
    duplicate: bool = False
    saw_src: set[bytes] = attrs.field(factory=set)


WorkerHub = Hub[Member, int, int]
"""A link is the number of the worker that it leads to."""
Pair = tuple[int, int]
"""The worker that hears, and the one that tells."""


def make_hubs(workers: int) -> list[WorkerHub]:
    hubs: list[WorkerHub] = [Hub() for _ in range(workers)]
    for number, hub in enumerate(hubs):
        hub.worker = number
    return hubs


def tell_all(hubs: list[WorkerHub]) -> None:
    """Have each hear from each other one what that claims by now."""
    for hearer, teller in permutations(range(len(hubs)), 2):
        hubs[hearer].add_claim(A, teller, hubs[teller].claim(A))


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_of_those_that_claim_a_key_at_the_same_time_one_has_it(workers: int) -> None:
    hubs = make_hubs(workers)
    for hub in hubs:
        hub.join(Member(A), 10)
    tell_all(hubs)
    assert [A in hub.active for hub in hubs].count(True) == 1
    # And of those that go beyond the same claim.
    heard = [hub.note_activity(hub.passive[A], 10) for hub in hubs if A in hub.passive]
    assert heard == [True] * (workers - 1)
    tell_all(hubs)
    (last,) = (number for number, hub in enumerate(hubs) if A in hub.active)
    for number, hub in enumerate(hubs):
        assert number == last or hub.other_workers.best[A] == last
        assert hub.check() == []


def test_the_numbers_of_all_workers_fit_into_a_claim() -> None:
    claims = {next_claim(7, 0, worker) for worker in range(MAX_WORKERS)}
    assert len(claims) == MAX_WORKERS == 1 << WORKER_BITS
    for claim in claims:
        assert claim < next_claim(8, 0, 0)
        assert all(next_claim(7, claim, worker) > claim for worker in range(MAX_WORKERS))


class WorkersMachine(RuleBasedStateMachine):
    """Workers whose clients come, speak and go, while links come, go and are late.

    What one tells another arrives in its order; between links there is no order at all.
    """

    workers = 3
    resolution = 1
    """Nanoseconds between two times that the clock shows; 0 where it stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.hubs = make_hubs(self.workers)
        self.connected: list[tuple[int, Member]] = []
        self.now = START
        # What each link has yet to hear, and has been told so far; None where there is no link.
        self.told: dict[Pair, deque[bytes] | None] = {}
        self.present: dict[Pair, set[bytes]] = {}
        # What each key was claimed with last by each worker that has it.
        self.claimed: list[dict[bytes, int]] = [{} for _ in range(self.workers)]
        for pair in permutations(range(self.workers), 2):
            self.told[pair] = deque()
            self.present[pair] = set()

    def tick(self) -> int:
        self.now += 1
        return self.now - self.now % self.resolution if self.resolution else START

    def tell(self, worker: int, key: bytes) -> None:
        """Tell others; as a watcher's updates do, each key once, and as it is when it is taken."""
        for (_, teller), queue in self.told.items():
            if teller == worker and queue is not None and key not in queue:
                queue.append(key)

    def hear(self, pair: Pair) -> None:
        queue = self.told[pair]
        assert queue
        hearer, teller = pair
        key = queue.popleft()
        if self.hubs[teller].local(key) is not None:
            self.present[pair].add(key)
            self.hubs[hearer].add_claim(key, teller, self.hubs[teller].claim(key))
        else:
            self.present[pair].discard(key)
            self.hubs[hearer].remove_claim(key, teller)

    def connect(self, pair: Pair) -> None:
        self.told[pair] = deque(self.hubs[pair[1]].keys(local=True))

    def settle(self) -> None:
        for pair, queue in self.told.items():
            if queue is None:
                self.connect(pair)
            while self.told[pair]:
                self.hear(pair)

    def note_claim(self, worker: int, key: bytes) -> None:
        hub = self.hubs[worker]
        claim = self.claimed[worker][key] = hub.claim(key)
        assert claim > hub.other_workers.highest(key)
        if self.resolution == 1:
            assert claim == next_claim(self.now, 0, worker)
        self.tell(worker, key)

    @rule(data=st.data(), key=st.sampled_from([A, B]))
    def join(self, data: st.DataObject, key: bytes) -> None:
        worker = data.draw(st.integers(0, self.workers - 1))
        member = Member(key)
        self.hubs[worker].join(member, self.tick())
        assert self.hubs[worker].active[key] is member
        self.connected.append((worker, member))
        self.note_claim(worker, key)

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
        if member.duplicate and self.hubs[worker].note_activity(member, self.tick()):
            self.note_claim(worker, member.key)

    @rule(data=st.data())
    def hear_one(self, data: st.DataObject) -> None:
        if waiting := [pair for pair, queue in self.told.items() if queue]:
            self.hear(data.draw(st.sampled_from(waiting)))

    def lose(self, pair: Pair) -> None:
        hearer, teller = pair
        hub = self.hubs[hearer]
        lost = hub.remove_claims(self.present[pair], teller)
        assert {key for key in self.present[pair] if not hub.is_here(key)} == set(lost)
        self.present[pair].clear()
        self.told[pair] = None

    @rule(data=st.data())
    def lose_a_link(self, data: st.DataObject) -> None:
        self.lose(data.draw(st.sampled_from(list(self.told))))

    @rule(data=st.data())
    def make_a_link(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(list(self.told)))
        if self.told[pair] is None:
            self.connect(pair)

    @rule(data=st.data())
    def start_a_worker_anew(self, data: st.DataObject) -> None:
        """With the same number, so that what it claims may be what the old one has claimed."""
        worker = data.draw(st.integers(0, self.workers - 1))
        for pair in self.told:
            if worker in pair:
                self.lose(pair)
        self.hubs[worker] = Hub()
        self.hubs[worker].worker = worker
        self.connected = [found for found in self.connected if found[0] != worker]
        self.claimed[worker] = {}

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
                    assert hub.other_workers.best[key] == last

    @precondition(lambda self: self.connected and self.resolution == 1)
    @rule(data=st.data())
    def who_speaks_gets_its_packets_from_everywhere(self, data: st.DataObject) -> None:
        self.settle()
        self.now += RECLAIM_EVERY
        worker, member = data.draw(st.sampled_from(self.connected))
        if member.duplicate and self.hubs[worker].note_activity(member, self.tick()):
            self.note_claim(worker, member.key)
        self.settle()
        for hub in self.hubs:
            found = hub.active.get(member.key)
            if found is None:
                found = self.hubs[hub.other_workers.best[member.key]].local(member.key)
            assert found is member

    @invariant()
    def all_is_consistent(self) -> None:
        for number, hub in enumerate(self.hubs):
            assert hub.check() == []
            here = {member.key for worker, member in self.connected if worker == number}
            assert hub.active.keys() | hub.passive.keys() == here
            assert {key: hub.claim(key) for key in here} == self.claimed[number]

    @invariant()
    def what_makes_a_hop_arrives(self) -> None:
        """Also where two workers yield to each other; and then it makes no other hop."""
        for hub in self.hubs:
            for key in hub.passive:
                there = self.hubs[hub.other_workers.best[key]]
                connected = [m for worker, m in self.connected if self.hubs[worker] is there]
                if any(member.key == key for member in connected):
                    assert there.local(key) in connected


class TwoStandingStill(WorkersMachine):
    workers = 2
    resolution = 0


class ThreeStandingStill(WorkersMachine):
    resolution = 0


class FourOfCoarseClocks(WorkersMachine):
    workers = 4
    resolution = START


TestWorkersMachine = WorkersMachine.TestCase
TestTwoStandingStill = TwoStandingStill.TestCase
TestThreeStandingStill = ThreeStandingStill.TestCase
TestFourOfCoarseClocks = FourOfCoarseClocks.TestCase
