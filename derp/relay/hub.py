"""Who is connected: from key to connection, duplicates, and who is told when somebody leaves.

What is connected to another relay of the mesh is known by the link that leads there.

The hub does nothing itself. `leave` returns those who are to be told, and the caller tells them.
"""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from derp.relay.duplicates import DuplicateSet
from derp.relay.forwarders import Forwarders


class Member(Protocol):
    """What the hub needs of a connection; it is compared by identity."""

    key: bytes
    """The 32-byte key that it logged in with."""
    duplicate: bool
    """Set by the hub: whether another connection has the same key."""
    heard_from: set[bytes]
    """Set by the hub: the keys that packets were handed to this connection from."""


M = TypeVar("M", bound=Member)
L = TypeVar("L")


class Hub(Generic[M, L]):
    """Every logged-in connection of this relay, and every key that a link to another one leads to.

    A connection of this relay comes before any link.
    """

    def __init__(self) -> None:
        self.active: dict[bytes, M] = {}
        """The connection that gets a key's packets. Read directly on the packet path."""
        self.members: dict[M, None] = {}
        self.duplicates: dict[bytes, DuplicateSet[M]] = {}
        self.duplicate_logins = 0
        """How many connections have ever joined while their key was connected."""
        self.forwarders: Forwarders[L] = Forwarders()
        self._told_when_gone: dict[bytes, set[M]] = {}

    def join(self, member: M) -> None:
        """Let a connection in; it gets its key's packets from now on."""
        key = member.key
        self.members[member] = None
        if (duplicates := self.duplicates.get(key)) is not None:
            duplicates.add(member)
        elif (other := self.active.get(key)) is not None:
            self.duplicates[key] = DuplicateSet(other, member)
            other.duplicate = True
        if key in self.duplicates:
            member.duplicate = True
            self.duplicate_logins += 1
        self.active[key] = member

    def leave(self, member: M) -> set[M]:
        """Let a connection go; return those to be told that its key is no longer reachable."""
        key = member.key
        del self.members[member]
        for source in member.heard_from:
            if (watching := self._told_when_gone.get(source)) is not None:
                watching.discard(member)
                if not watching:
                    del self._told_when_gone[source]

        if (duplicates := self.duplicates.get(key)) is None:
            del self.active[key]
            return self.gone(key)
        duplicates.remove(member)
        self.active[key] = duplicates.active
        if len(duplicates.members) == 1:
            del self.duplicates[key]
            duplicates.active.duplicate = False
        return set()

    def add_forwarder(self, key: bytes, link: L) -> None:
        """Note that `link` leads to a relay that `key` is connected to."""
        self.forwarders.add(key, link)

    def remove_forwarder(self, key: bytes, link: L) -> set[M]:
        """Note that it does so no longer; return those to be told that `key` is gone."""
        return self.gone(key) if self._remove_forwarder(key, link) else set()

    def remove_link(self, keys: Iterable[bytes], link: L) -> list[bytes]:
        """Note that `link` leads to none of `keys` any longer.

        Returns those for which there may be somebody to tell, with `gone`: that is slow where they
        are many, and what is back by then has not gone.
        """
        told = self._told_when_gone
        return [key for key in keys if self._remove_forwarder(key, link) and key in told]

    def _remove_forwarder(self, key: bytes, link: L) -> bool:
        """Forget that `link` leads to `key`; return whether no other one does."""
        if key in self.active and key not in self.forwarders:
            # To the original, what a key is connected to here is in place of a link.
            self.forwarders.delete_other += 1
        return self.forwarders.remove(key, link)

    def gone(self, key: bytes) -> set[M]:
        """Return who is to be told of a key that has left, unless it is still reachable."""
        if key in self.active or key in self.forwarders:
            return set()
        return self._told_when_gone.pop(key, set())

    def connections(self, key: bytes) -> list[M]:
        """List the connections that a key has to this relay."""
        if (duplicates := self.duplicates.get(key)) is not None:
            return list(duplicates.members)
        return [self.active[key]] if key in self.active else []

    @property
    def known(self) -> int:
        """How many keys are connected, to this relay or to another of the mesh."""
        return len(self.active.keys() | self.forwarders.best.keys())

    def heard(self, member: M) -> None:
        """Note that a connection whose `duplicate` is set has sent something."""
        duplicates = self.duplicates[member.key]
        duplicates.heard(member)
        self.active[member.key] = member

    def handed_over(self, source: bytes, member: M) -> None:
        """Note that `member` was handed a packet from `source`, for the first time.

        To be called when `source not in member.heard_from`. A connection is told only once that
        a key has left, however often it comes back: as the original does it (noteSendFromSrc).
        """
        member.heard_from.add(source)
        self._told_when_gone.setdefault(source, set()).add(member)

    def check(self) -> list[str]:
        """Return what is inconsistent, one sentence each; empty when all is well."""
        problems = self.forwarders.check()
        keys: dict[bytes, int] = {}
        for member in self.members:
            keys[member.key] = keys.get(member.key, 0) + 1
        if keys.keys() != self.active.keys():
            difference = len(keys.keys() ^ self.active.keys())
            problems.append(f"{difference} keys are connected or active, but not both")
        if inactive := sum(member not in self.members for member in self.active.values()):
            problems.append(f"{inactive} active connections have left")
        if {key for key, count in keys.items() if count > 1} != self.duplicates.keys():
            problems.append("the keys connected more than once are not those known as duplicates")
        for key, duplicates in self.duplicates.items():
            if len(duplicates.members) != keys.get(key):
                problems.append("a set of duplicates has lost or kept a connection")
            if self.active.get(key) is not duplicates.active:
                problems.append("a set of duplicates disagrees on who is active")
        if wrong := sum(m.duplicate is not (m.key in self.duplicates) for m in self.members):
            problems.append(f"{wrong} connections are wrong about being duplicates")
        if not all(self._told_when_gone.values()):
            problems.append("somebody's leaving would be told to nobody")
        if gone := sum(
            member not in self.members
            for watching in self._told_when_gone.values()
            for member in watching
        ):
            problems.append(f"{gone} connections that have left wait to hear of others leaving")
        return problems
