"""The clients that logged in with one key; the active one gets its packets.

The Go derper's policy "last writer is active" (dupClientSet, lastWriterIsActive): at first the
newest client, afterwards the one that sent last, whatever it sent. No client is ever disabled.
"""

from typing import Generic, TypeVar

M = TypeVar("M")


class DuplicateSet(Generic[M]):
    """The clients of one key: at least two, until the last `remove`.

    `recent` (Go: sendHistory) holds the clients that have sent something, the latest last. To join
    counts as sending, but not for the second client.
    """

    __slots__ = ("active", "members", "recent")

    def __init__(self, first: M, second: M) -> None:
        self.members: dict[M, None] = {first: None, second: None}
        self.recent: dict[M, None] = {first: None}
        self.active = second

    def add(self, member: M) -> None:
        """Add a new client, as the active one."""
        self.members[member] = None
        self.note_activity(member)

    def note_activity(self, member: M) -> None:
        """Make a client that has sent something the active one."""
        self.recent.pop(member, None)
        self.recent[member] = None
        self.active = member

    def remove(self, member: M) -> None:
        """Remove a client; if it was active, the last of `recent` takes over, else the oldest."""
        del self.members[member]
        self.recent.pop(member, None)
        if self.active is member:
            self.active = next(reversed(self.recent), next(iter(self.members)))
