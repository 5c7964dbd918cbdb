"""The clients that logged in with one key; the active one gets its packets.

The Go derper's policy "last writer is active" (dupClientSet, lastWriterIsActive): first the newest
client, afterwards the one that sent last, whatever it sent. No client is disabled. When the active
one leaves, the one that was active or sent most recently takes over; of silent ones the oldest.
"""

from typing import Generic, TypeVar

M = TypeVar("M")


class DuplicateSet(Generic[M]):
    """Two or more clients of one key.

    `recent` holds the clients that have sent or been active, the most recent last. (The Go derper
    keeps a history that grows with every change; only the last mention of a client matters.)
    """

    __slots__ = ("active", "members", "recent")

    def __init__(self, first: M, second: M) -> None:
        self.members: dict[M, None] = {first: None, second: None}
        self.recent: dict[M, None] = {first: None}
        self.active = second

    def add(self, member: M) -> None:
        """Add a new client, as the active one."""
        self.members[member] = None
        self.recent[member] = None
        self.active = member

    def note_activity(self, member: M) -> None:
        """Make the client that has sent something the active one."""
        self.recent.pop(member, None)
        self.recent[member] = None
        self.active = member

    def remove(self, member: M) -> None:
        """Remove a client; where it was active, another takes over."""
        del self.members[member]
        self.recent.pop(member, None)
        if self.active is member:
            self.active = next(reversed(self.recent), next(iter(self.members)))
