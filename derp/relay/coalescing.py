"""When to coalesce the reads of a connection, as network cards coalesce interrupts.

A read that finds one packet costs about as much as one that finds thirty: most of it is waking up.
So a stream of packets a tenth of a millisecond apart is read once in COALESCE_TIME, which delays a
packet by up to as much. A client that sends little, or waits for answers, is read at once.

Whether coalescing pays is found by trying: two peers that answer each other packet by packet look
like a stream, but nothing gathers. After each try that did not pay, the next waits twice as long.
"""

from collections.abc import Callable
from typing import Final

COALESCE_TIME: Final = 0.001
"""Seconds between the reads of a stream; epoll knows no shorter wait."""
SMALL_READ: Final = 16 << 10
"""Bytes of the largest read after which coalescing may pay."""
STREAM_READS: Final = 40
STREAM_TIME: Final = 0.02
"""Seconds; STREAM_READS small reads within them call for a try."""
LARGE_READ: Final = 256 << 10
"""Bytes; a larger read needs no coalescing."""
MAX_MISSES: Final = 4
"""Reads in a row without a joined packet that end a try: it did not pay."""
FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
"""Seconds."""


class ReadCoalescing:
    """The decision for one connection, from its reads so far."""

    __slots__ = ("_backoff", "_coalescing", "_misses", "_not_before", "_reads", "_since")

    def __init__(self) -> None:
        self._coalescing = False
        self._misses = 0
        self._reads = 0
        self._since = 0.0
        self._not_before = 0.0
        self._backoff = FIRST_BACKOFF

    def note_read(self, joined: int, size: int, clock: Callable[[], float]) -> bool:
        """Record a read of `size` bytes; return whether to coalesce the next one.

        `joined`: how many of its packets went to the destination of the one before, since only
        these are relayed together. Call it after a read that emptied the socket, with `size` summed
        over the reads since the last such one. `clock` returns seconds, and is called seldom.
        """
        if self._coalescing:
            return self._keep_coalescing(joined, size, clock)
        if size > SMALL_READ:
            return False
        self._reads += 1
        if self._reads < STREAM_READS:
            return False
        now = clock()
        self._coalescing = now - self._since < STREAM_TIME and now >= self._not_before
        self._misses = self._reads = 0
        self._since = now
        return self._coalescing

    def _keep_coalescing(self, joined: int, size: int, clock: Callable[[], float]) -> bool:
        if joined > 0:
            self._misses = 0
            self._reads += 1
            if self._reads == STREAM_READS:
                self._backoff = FIRST_BACKOFF
        else:
            self._misses += 1
        given_up = self._misses == MAX_MISSES
        if given_up:
            self._not_before = clock() + self._backoff
            self._backoff = min(self._backoff * 2, MAX_BACKOFF)
        if given_up or size > LARGE_READ:
            self._coalescing = False
            self._reads = 0
        return self._coalescing
