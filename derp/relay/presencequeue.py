"""The keys whose presence a watcher is still to be told, in order.

A watcher is told the state, not its history. So keys are queued, and frames are built when taken: a
dump of all clients costs nothing until the watcher takes it, piece by piece.

Invariant: a key that changes after its frame was taken is queued again.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

MAX_FRAMES_TAKEN: Final = 256
"""Most frames built at a time: all other clients wait meanwhile."""

FrameOf = Callable[[bytes], bytes]
"""Called with a key; returns the frame that says whether it is connected."""


class PresenceQueue:
    """Queued keys, each once, in the order in which they were first put."""

    __slots__ = ("_frame_of", "_order", "_waiting")

    def __init__(self, frame_of: FrameOf) -> None:
        self._frame_of = frame_of
        self._order: deque[bytes] = deque()
        self._waiting: set[bytes] = set()

    def put(self, keys: Collection[bytes]) -> None:
        """Queue distinct keys that have changed; a queued one keeps its place."""
        if not self._waiting:
            # For a dump, building a set is faster than growing one.
            self._waiting = set(keys)
        else:
            keys = [key for key in keys if key not in self._waiting]
            self._waiting.update(keys)
        self._order.extend(keys)

    def take(self, limit: int) -> list[bytes]:
        """Take frames of about `limit` bytes, at most MAX_FRAMES_TAKEN; at least one, if any.

        The time is in proportion to the frames returned, however many wait.
        """
        frames: list[bytes] = []
        size = 0
        while self._order and size < limit and len(frames) < MAX_FRAMES_TAKEN:
            key = self._order.popleft()
            self._waiting.remove(key)
            frames.append(self._frame_of(key))
            size += len(frames[-1])
        return frames

    def __len__(self) -> int:
        return len(self._order)
