"""Several connections that logged in with one key, and which of them gets the traffic.

The original's policy "last writer is active" (Go: dupClientSet, lastWriterIsActive): the newest
connection begins as the active one, afterwards the one that sent last, whatever it sent. Nobody
is muted. When the active one leaves, the one that was active or spoke most recently takes over;
of several silent ones the oldest.
"""

from typing import Generic, TypeVar

M = TypeVar("M")


class DuplicateSet(Generic[M]):
    """Two or more connections of one key.

    `recent` holds those that have spoken or had their turn, the most recent last. The original
    keeps a history that grows with every change of speaker; only its last mention of each
    connection matters, so that is what is kept.
    """

    __slots__ = ("active", "members", "recent")

    def __init__(self, first: M, second: M) -> None:
        self.members: dict[M, None] = {first: None, second: None}
        self.recent: dict[M, None] = {first: None}
        self.active = second

    def add(self, member: M) -> None:
        """Let a new connection in; it becomes the active one."""
        self.members[member] = None
        self.recent[member] = None
        self.active = member

    def note_activity(self, member: M) -> None:
        """Note that a connection has sent something: it becomes the active one."""
        self.recent.pop(member, None)
        self.recent[member] = None
        self.active = member

    def remove(self, member: M) -> None:
        """Let a connection go; where it was the active one, another takes over."""
        del self.members[member]
        self.recent.pop(member, None)
        if self.active is member:
            self.active = next(reversed(self.recent), next(iter(self.members)))
