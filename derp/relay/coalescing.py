"""When to coalesce the reads of a connection, as network cards coalesce interrupts.

A read that finds one packet costs about as much as one that finds thirty: most of it is waking up.
So a stream of packets a tenth of a millisecond apart is read once in COALESCE_TIME, not once for
each packet. That delays a packet by up to COALESCE_TIME, in streams only that fill a queue within
that time; a client that sends little, or waits for answers, is read at once.

Whether it pays is found by trying: two peers who answer each other packet by packet look like a
stream, but nothing gathers. After a try that did not pay the next waits, twice as long each time.
"""

from collections.abc import Callable
from typing import Final

COALESCE_TIME: Final = 0.001
"""Seconds between the reads of a stream; epoll knows no shorter wait."""
SMALL_READ: Final = 16 << 10
"""Bytes up to which a read is small, so that coalescing may pay."""
MANY_READS: Final = 40
WITHIN: Final = 0.02
"""MANY_READS small reads WITHIN so many seconds call for a try."""
PLENTY: Final = 256 << 10
"""Bytes in one read above which coalescing is needless."""
MAX_MISSES: Final = 4
"""Reads in a row without a joined packet after which a try has not paid."""
FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
"""Seconds."""


class ReadCoalescing:
    """The decision for one connection, by its reads."""

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

        `joined`: how many of its packets went to the destination of the one before; packets for
        many destinations in turn are relayed one by one all the same, only later. A read that did
        not empty the socket is not recorded, but its bytes count with the next one's. `clock`
        returns the time in seconds; it is called seldom.
        """
        if self._coalescing:
            return self._go_on(joined, size, clock)
        if size > SMALL_READ:
            return False
        self._reads += 1
        if self._reads < MANY_READS:
            return False
        now = clock()
        self._coalescing = now - self._since < WITHIN and now >= self._not_before
        self._misses = self._reads = 0
        self._since = now
        return self._coalescing

    def _go_on(self, joined: int, size: int, clock: Callable[[], float]) -> bool:
        if joined > 0:
            self._misses = 0
            self._reads += 1
            if self._reads == MANY_READS:
                self._backoff = FIRST_BACKOFF
        else:
            self._misses += 1
        given_up = self._misses == MAX_MISSES
        if given_up:
            self._not_before = clock() + self._backoff
            self._backoff = min(self._backoff * 2, MAX_BACKOFF)
        if given_up or size > PLENTY:
            self._coalescing = False
            self._reads = 0
        return self._coalescing
