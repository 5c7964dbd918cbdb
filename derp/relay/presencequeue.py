"""Whom a watcher is still to be told about: keys only, and what is true of them when it is told.

A watcher gets no history. What waits is therefore no frame but a key, and its frame is made when
it is taken: a dump of all clients costs nothing until the watcher takes it, and then a piece at a
time.

What must never happen here: a key that changed after its frame was taken, and is not told again.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

MAX_FRAMES_TAKEN: Final = 256
"""Most frames that are made at a time: all other clients wait meanwhile."""

FrameOf = Callable[[bytes], bytes]
"""Called with a key; returns the frame that says whether it is connected."""


class PresenceQueue:
    """Keys that wait, each once, in the order in which they were first put."""

    __slots__ = ("_frame_of", "_order", "_waiting")

    def __init__(self, frame_of: FrameOf) -> None:
        self._frame_of = frame_of
        self._order: deque[bytes] = deque()
        self._waiting: set[bytes] = set()

    def put(self, keys: Collection[bytes]) -> None:
        """Queue keys that have changed, each different; one that waits keeps its place."""
        if not self._waiting:
            # A dump: a set of its own is made faster than one grows.
            self._waiting = set(keys)
        else:
            keys = [key for key in keys if key not in self._waiting]
            self._waiting.update(keys)
        self._order.extend(keys)

    def take(self, limit: int) -> list[bytes]:
        """Take frames of about `limit` bytes, UPDATES_AT_ONCE at most; one at least, if any waits.

        Takes time for those it returns, however many wait.
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
