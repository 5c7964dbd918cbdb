"""One key at several workers: what the hub of one of them does."""

import attrs
import pytest

from derp.relay.claims import next_claim
from derp.relay.hub import RECLAIM_EVERY, Hub

A, B, C = (bytes([n]) * 32 for n in range(3))


@attrs.define(eq=False)
class Member:
    key: bytes
    duplicate: bool = False
    saw_src: set[bytes] = attrs.field(factory=set)


WorkerHub = Hub[Member, str, str]


@pytest.fixture
def hub() -> WorkerHub:
    return Hub()


def at(now: int, worker: int = 1) -> int:
    """What a worker claims a key with at that time."""
    return next_claim(now, 0, worker)


def test_a_key_that_logs_in_at_another_worker_yields(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_claim(A, "other", at(11))
    assert hub.active == {}
    assert hub.passive == {A: old}
    assert hub.other_workers.best == {A: "other"}
    assert hub.local(A) is old
    assert old.duplicate
    assert hub.clients(A) == [old]
    assert hub.key_count == 1
    assert hub.is_here(A)
    assert hub.check() == []


def test_one_that_had_logged_in_before_does_not_make_it_yield(hub: WorkerHub) -> None:
    new = Member(A)
    hub.join(new, 10)
    hub.add_claim(A, "other", at(9))
    assert hub.active == {A: new}
    assert not new.duplicate
    assert hub.check() == []


def test_a_new_login_always_takes_the_key(hub: WorkerHub) -> None:
    """Even where the other worker's clock is ahead."""
    hub.add_claim(A, "other", at(1000))
    new = Member(A)
    hub.join(new, 10)
    assert hub.active == {A: new}
    assert hub.claim(A) == at(1001, hub.worker)
    assert hub.duplicate_logins == 1
    hub.add_claim(A, "other", at(2000))
    newer = Member(A)
    hub.join(newer, 11)
    assert hub.active == {A: newer}
    assert hub.claim(A) == at(2001, hub.worker)
    assert hub.passive == {}
    assert new.duplicate
    assert newer.duplicate
    assert hub.check() == []


def test_what_is_heard_takes_it_back(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_claim(A, "other", at(20))
    assert hub.note_activity(old, 15)
    assert hub.active == {A: old}
    assert hub.claim(A) == at(21, hub.worker)
    assert not old.duplicate
    assert hub.check() == []


def test_it_is_taken_back_only_so_often(hub: WorkerHub) -> None:
    member = Member(A)
    hub.join(member, 10)
    hub.add_claim(A, "other", at(20))
    assert hub.note_activity(member, 30)
    hub.add_claim(A, "other", at(40))
    for now in (41, 1000, 30 + RECLAIM_EVERY - 1):
        assert not hub.note_activity(member, now)
        assert hub.passive == {A: member}
        assert member.duplicate
    assert hub.note_activity(member, 30 + RECLAIM_EVERY)
    assert hub.active == {A: member}
    assert hub.claim(A) == at(30 + RECLAIM_EVERY, hub.worker)


def test_when_no_other_worker_has_it_any_longer_it_is_taken_back(hub: WorkerHub) -> None:
    old = Member(A)
    hub.join(old, 10)
    hub.add_claim(A, "one", at(20))
    hub.add_claim(A, "two", at(30))
    assert hub.remove_claim(A, "two") == set()
    assert hub.other_workers.best == {A: "one"}
    assert hub.passive == {A: old}
    assert hub.remove_claim(A, "one") == set()
    assert hub.active == {A: old}
    assert not old.duplicate


def test_one_that_had_it_before_does_not_get_it_when_the_last_one_leaves(hub: WorkerHub) -> None:
    member = Member(A)
    hub.join(member, 20)
    hub.add_claim(A, "one", at(10))
    hub.add_claim(A, "two", at(30))
    assert hub.passive == {A: member}
    hub.remove_claim(A, "two")
    assert hub.active == {A: member}
    assert hub.check() == []


def test_the_old_connection_leaves_and_nobody_thinks_that_the_key_has_gone(hub: WorkerHub) -> None:
    old, receiver = Member(A), Member(B)
    hub.join(old, 10)
    hub.join(receiver, 11)
    hub.note_send_from(A, receiver)
    hub.add_claim(A, "other", at(20))
    assert hub.leave(old) == set()
    assert hub.passive == {}
    assert hub.is_here(A)
    assert hub.check() == []
    assert hub.remove_claim(A, "other") == {receiver}
    assert not hub.is_here(A)


def test_several_connections_yield_together(hub: WorkerHub) -> None:
    first, second = Member(A), Member(A)
    hub.join(first, 10)
    hub.join(second, 11)
    hub.add_claim(A, "other", at(20))
    assert hub.passive == {A: second}
    assert hub.note_activity(first, 30)
    assert hub.active == {A: first}
    assert first.duplicate
    assert hub.check() == []
    hub.add_claim(A, "other", at(40))
    # Too soon, but among those here it is the one that spoke.
    assert not hub.note_activity(second, 41)
    assert hub.passive == {A: second}
    assert hub.leave(second) == set()
    assert hub.passive == {A: first}
    assert first.duplicate
    assert hub.check() == []
    hub.remove_claim(A, "other")
    assert hub.active == {A: first}
    assert not first.duplicate


def test_a_lost_link_takes_its_keys_along(hub: WorkerHub) -> None:
    here, receiver = Member(A), Member(B)
    hub.join(here, 10)
    hub.join(receiver, 11)
    hub.add_claim(A, "one", at(20))
    hub.add_claim(C, "one", at(20))
    hub.add_claim(bytes(31) + b"x", "one", at(20))
    hub.note_send_from(C, receiver)
    lost = hub.remove_claims([A, C, bytes(31) + b"x"], "one")
    assert lost == [C, bytes(31) + b"x"]
    assert hub.watched(lost) == [C]
    assert hub.note_peer_gone(C) == {receiver}
    assert hub.active == {A: here, B: receiver}
    assert hub.check() == []


def test_a_lost_link_leaves_what_others_lead_to(hub: WorkerHub) -> None:
    hub.add_claim(A, "one", at(20))
    hub.add_claim(A, "two", at(10))
    assert hub.remove_claims([A], "one") == []
    assert hub.other_workers.best == {A: "two"}


def test_who_is_at_another_relay_is_not_gone_but_not_in_this_relay(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.note_send_from(A, receiver)
    hub.add_claim(A, "worker", at(10))
    hub.add_forwarder(A, "relay")
    assert hub.key_count == 2
    assert hub.remove_claim(A, "worker") == set()
    assert not hub.is_here(A)
    assert hub.remove_forwarder(A, "relay") == {receiver}


def test_who_moves_from_another_relay_to_another_worker_is_not_gone(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.note_send_from(A, receiver)
    hub.add_forwarder(A, "relay")
    hub.add_claim(A, "worker", at(10))
    assert hub.remove_forwarder(A, "relay") == set()
    assert hub.remove_claim(A, "worker") == {receiver}


def test_a_key_that_was_not_there_has_not_gone(hub: WorkerHub) -> None:
    receiver = Member(B)
    hub.join(receiver, 1)
    hub.note_send_from(A, receiver)
    assert hub.remove_claim(A, "worker") == set()


def test_the_keys_there_are(hub: WorkerHub) -> None:
    for key in (A, B):
        hub.join(Member(key), 10)
    assert set(hub.keys(local=True)) == set(hub.keys(local=False)) == {A, B}
    hub.add_claim(A, "worker", at(20))
    hub.add_claim(C, "worker", at(20))
    assert set(hub.keys(local=True)) == {A, B}
    assert set(hub.keys(local=False)) == {A, B, C}


def test_a_single_worker_claims_nothing(hub: WorkerHub) -> None:
    for key in (A, A, B):
        hub.join(Member(key))
    hub.note_activity(hub.clients(A)[0])
    assert not hub._claims
    assert hub.check() == []


def test_the_check_notices_each_kind_of_damage() -> None:
    def damaged(damage: str) -> list[str]:
        hub: WorkerHub = Hub()
        for key in (A, B, C):
            hub.join(Member(key), 10)
        hub.add_claim(A, "worker", at(20))
        hub.add_claim(B, "worker", at(5))
        match damage:
            case "both":
                hub.active[A] = hub.passive[A]
            case "neither":
                del hub.passive[A]
            case "to nobody":
                hub.other_workers.remove(A, "worker")
            case "not yielded":
                hub.other_workers.add(B, "worker", at(30))
            case "to an older one":
                hub._claims[A] = at(30)
            case "a claim to what has left":
                hub._claims[b"x" * 32] = 1
            case "the same claim":
                hub.other_workers.add(B, "worker", hub.claim(B))
            case "wrong flag":
                hub.passive[A].duplicate = False
            case "the workers' books":
                del hub.other_workers.best[B]
        return hub.check()

    assert damaged("nothing") == []
    for damage in (
        "both",
        "neither",
        "to nobody",
        "not yielded",
        "to an older one",
        "a claim to what has left",
        "the same claim",
        "wrong flag",
        "the workers' books",
    ):
        assert damaged(damage), damage
