"""The connected clients by key, and which of them to tell that a key is gone.

For a key at another relay of the mesh, or at another worker of this one, the hub has the link that
leads there. Where a key is connected to several workers, the last writer is active, as among
duplicates: this worker's client is *passive* while another worker's claim is higher
(derp.relay.claims). It is marked as a duplicate, so that it claims the key again when it sends.

The hub sends nothing: its methods return the clients to tell, and the caller tells them.
"""

from collections.abc import Collection, Iterable
from typing import Final, Generic, Protocol, TypeVar

from derp.relay.claims import Claims, next_claim
from derp.relay.duplicates import DuplicateSet
from derp.relay.forwarders import Forwarders

RECLAIM_EVERY: Final = 250_000_000
"""Least nanoseconds between two claims of a passive client that sends: if two of one key send all
the time, their workers would send each other little else."""


class Member(Protocol):
    """The part of a client that the hub needs; compared by identity."""

    key: bytes
    """32 bytes."""
    duplicate: bool
    """Set by the hub: whether it is a duplicate or passive, so that its activity counts."""
    saw_src: set[bytes]
    """Set by the hub: the keys whose packets it was sent (Go: sawSrc)."""


M = TypeVar("M", bound=Member)
"""A client."""
L = TypeVar("L")
"""A link to another relay."""
S = TypeVar("S")
"""A link to another worker."""


class Hub(Generic[M, L, S]):
    """Every client of this worker, and every key that a link leads to.

    For a key, an active client goes before another worker, and a worker before another relay.
    """

    def __init__(self) -> None:
        self.worker = 0
        """The number of this worker, unique in this relay."""
        self.active: dict[bytes, M] = {}
        """The client that gets a key's packets. Read directly on the packet path."""
        self.passive: dict[bytes, M] = {}
        """The same for keys active at another worker: packets come from there only."""
        self.members: dict[M, None] = {}
        self.duplicates: dict[bytes, DuplicateSet[M]] = {}
        self.duplicate_logins = 0
        """How many clients have ever joined while their key was connected."""
        self.forwarders: Forwarders[L] = Forwarders()
        self.other_workers: Claims[S] = Claims()
        # With several workers: this one's claims, and when a passive client last claimed its key.
        self._claims: dict[bytes, int] = {}
        self._reclaimed: dict[bytes, int] = {}
        self._peer_gone_watchers: dict[bytes, set[M]] = {}
        """By key, the clients that were sent packets from it, and so are told once it is gone (Go:
        peerGoneWatchers). Mesh peers that watch presence are in derp.session.presence."""

    def join(self, member: M, now: int = 0) -> None:
        """Add a client; it gets its key's packets from now on (Go: registerClient).

        `now` is in nanoseconds of a clock that all workers share; 0 where there is one worker.
        """
        key = member.key
        self.members[member] = None
        if (duplicates := self.duplicates.get(key)) is not None:
            duplicates.add(member)
        elif (other := self.local(key)) is not None:
            self.duplicates[key] = DuplicateSet(other, member)
            other.duplicate = True
        if key in self.duplicates:
            member.duplicate = True
            self.duplicate_logins += 1
        elif key in self.other_workers.best:
            self.duplicate_logins += 1
        self.passive.pop(key, None)
        self.active[key] = member
        if now:
            self._claim(key, now)

    def leave(self, member: M) -> set[M]:
        """Remove a client; return whom to tell that its key is gone (Go: unregisterClient)."""
        key = member.key
        del self.members[member]
        for source in member.saw_src:
            if (watching := self._peer_gone_watchers.get(source)) is not None:
                watching.discard(member)
                if not watching:
                    del self._peer_gone_watchers[source]

        by_key = self.passive if key in self.passive else self.active
        if (duplicates := self.duplicates.get(key)) is None:
            del by_key[key]
            self._claims.pop(key, None)
            self._reclaimed.pop(key, None)
            return self.note_peer_gone(key)
        duplicates.remove(member)
        by_key[key] = duplicates.active
        if len(duplicates.members) == 1:
            del self.duplicates[key]
            duplicates.active.duplicate = by_key is self.passive
        return set()

    def local(self, key: bytes) -> M | None:
        """Return the client of this worker that gets packets for a key, active or passive."""
        found = self.active.get(key)
        return self.passive.get(key) if found is None else found

    def is_here(self, key: bytes) -> bool:
        """Return whether a key is connected to this relay, at any of its workers."""
        return key in self.active or key in self.other_workers.best

    def keys(self, *, local: bool) -> Collection[bytes]:
        """Return the keys connected to this relay; if `local`, to this worker."""
        more = self.passive if local else self.other_workers.best
        return self.active.keys() | more.keys() if more else self.active.keys()

    def claim(self, key: bytes) -> int:
        """Return this worker's claim to a key, for the other workers."""
        return self._claims.get(key, 0)

    def add_claim(self, key: bytes, link: S, claim: int) -> None:
        """Record the claim of the worker behind `link`."""
        self.other_workers.add(key, link, claim)
        self._apply_claims(key)

    def remove_claim(self, key: bytes, link: S) -> set[M]:
        """Remove the claim behind `link`; return the clients to tell that `key` is gone."""
        last = self.other_workers.remove(key, link)
        self._apply_claims(key)
        return self.note_peer_gone(key) if last else set()

    def remove_claims(self, keys: Iterable[bytes], link: S) -> list[bytes]:
        """Remove the claims behind `link`; return the keys no longer connected to this relay.

        `watched` and `note_peer_gone` return the clients to tell of these.
        """
        lost = []
        for key in keys:
            last = self.other_workers.remove(key, link)
            self._apply_claims(key)
            if last and key not in self.active:
                lost.append(key)
        return lost

    def watched(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the `keys` for which `note_peer_gone` may return a client."""
        return [key for key in keys if key in self._peer_gone_watchers]

    def _claim(self, key: bytes, now: int) -> None:
        self._claims[key] = next_claim(now, self.other_workers.highest(key), self.worker)

    def _is_claimed_elsewhere(self, key: bytes) -> bool:
        """Return whether another worker's claim to a key is higher than this one's."""
        return self.other_workers.highest(key) > self._claims.get(key, 0)

    def _apply_claims(self, key: bytes) -> None:
        """Make a key's client passive or active, as the claims are now."""
        if self._is_claimed_elsewhere(key):
            if (member := self.active.pop(key, None)) is not None:
                self.passive[key] = member
                member.duplicate = True
        elif (member := self.passive.get(key)) is not None:
            self._activate(key, member)

    def _activate(self, key: bytes, member: M) -> None:
        del self.passive[key]
        self.active[key] = member
        member.duplicate = key in self.duplicates

    def add_forwarder(self, key: bytes, link: L) -> None:
        """Add a link to a relay that `key` is connected to."""
        self.forwarders.add(key, link)

    def remove_forwarder(self, key: bytes, link: L) -> set[M]:
        """Remove a link; return the clients to tell that `key` is gone."""
        return self.note_peer_gone(key) if self._remove_forwarder(key, link) else set()

    def remove_link(self, keys: Iterable[bytes], link: L) -> list[bytes]:
        """Remove a link from all `keys`; return those to call `note_peer_gone` for."""
        return self.watched(key for key in keys if self._remove_forwarder(key, link))

    def _remove_forwarder(self, key: bytes, link: L) -> bool:
        """Remove a link; return whether it was the last one to `key`."""
        if key not in self.forwarders.best and self.is_here(key):
            # In the Go derper a client that is connected here takes the place of a link.
            self.forwarders.delete_other += 1
        return self.forwarders.remove(key, link)

    def note_peer_gone(self, key: bytes) -> set[M]:
        """Return the clients to tell that `key` is gone; none if it is still reachable."""
        if self.is_here(key) or key in self.forwarders.best:
            return set()
        return self._peer_gone_watchers.pop(key, set())

    def clients(self, key: bytes) -> list[M]:
        """Return the clients of this worker that logged in with a key."""
        if (duplicates := self.duplicates.get(key)) is not None:
            return list(duplicates.members)
        member = self.local(key)
        return [] if member is None else [member]

    @property
    def key_count(self) -> int:
        """The number of keys connected to this relay or another of the mesh."""
        here = self.active.keys() | self.other_workers.best.keys()
        return len(here | self.forwarders.best.keys())

    def note_activity(self, member: M, now: int = 0) -> bool:
        """Note that a client whose `duplicate` is set has sent something (Go: noteClientActivity).

        `now` as for `join`. Returns whether it claimed its key again: then tell the other workers.
        """
        key = member.key
        if (duplicates := self.duplicates.get(key)) is not None:
            duplicates.note_activity(member)
        if key not in self.passive:
            self.active[key] = member
            return False
        self.passive[key] = member
        if now - self._reclaimed.get(key, -RECLAIM_EVERY) < RECLAIM_EVERY:
            return False
        self._reclaimed[key] = now
        self._claim(key, now)
        self._activate(key, member)
        return True

    def note_send_from(self, source: bytes, member: M) -> None:
        """Note that `member` was sent a packet from `source` (Go: noteSendFromSrc).

        Call it if `source not in member.saw_src`, which stays set: as in the Go derper, a client is
        told only once that a key is gone, however often it comes back.
        """
        member.saw_src.add(source)
        self._peer_gone_watchers.setdefault(source, set()).add(member)

    def check(self) -> list[str]:
        """Return what is inconsistent, one sentence each; empty when all is well."""
        problems = [*self.forwarders.check(), *self.other_workers.check()]
        keys: dict[bytes, int] = {}
        for member in self.members:
            keys[member.key] = keys.get(member.key, 0) + 1
        reached = self.active | self.passive
        if keys.keys() != reached.keys():
            difference = len(keys.keys() ^ reached.keys())
            problems.append(f"{difference} keys are connected or active, but not both")
        if inactive := sum(member not in self.members for member in reached.values()):
            problems.append(f"{inactive} active connections have left")
        problems += self._check_passive()
        if {key for key, count in keys.items() if count > 1} != self.duplicates.keys():
            problems.append("the keys connected more than once are not those known as duplicates")
        for key, duplicates in self.duplicates.items():
            if len(duplicates.members) != keys.get(key):
                problems.append("a set of duplicates has lost or kept a connection")
            if self.local(key) is not duplicates.active:
                problems.append("a set of duplicates disagrees on who is active")
        noted = self.duplicates.keys() | self.passive.keys()
        if wrong := sum(member.duplicate is not (member.key in noted) for member in self.members):
            problems.append(f"{wrong} connections are wrong about being duplicates")
        if not all(self._peer_gone_watchers.values()):
            problems.append("a key has an empty set of clients to tell that it is gone")
        if gone := sum(
            member not in self.members
            for watching in self._peer_gone_watchers.values()
            for member in watching
        ):
            problems.append(f"{gone} connections that have left wait to hear of others leaving")
        return problems

    def _check_passive(self) -> list[str]:
        problems = []
        if self.active.keys() & self.passive.keys():
            problems.append("a key is active and passive")
        shared = self.active.keys() & self.other_workers.best.keys()
        if any(map(self._is_claimed_elsewhere, shared)):
            problems.append("a key is active, though another worker's claim is higher")
        for key in self.passive:
            if key not in self.other_workers.best:
                problems.append("a key is passive, though no other worker claims it")
            elif not self._is_claimed_elsewhere(key):
                problems.append("a key is passive, though no other claim is higher")
        if any(self.other_workers.highest(key) == claim for key, claim in self._claims.items()):
            problems.append("another worker has the same claim to a key")
        claimed = self._claims.keys() | self._reclaimed.keys()
        if claimed - self.active.keys() - self.passive.keys():
            problems.append("a key is claimed that is not connected")
        return problems
