"""The responder of one socket: one datagram at a time, or in batches, whichever costs less.

A request that comes alone costs least by `stun.plain`, which is all that there is on a system
without recvmmsg; requests that come at once, by `stun.batched`.
"""

import socket
import sys
from typing import Final

from stun.plain import PlainResponder
from stun.stats import Stats

if sys.platform == "linux":
    from stun.batched import BatchedResponder

BATCHES: Final = sys.platform == "linux"
"""Whether recvmmsg and sendmmsg are there in the form that `stun.mmsg` knows."""
BURST: Final = 8
"""Datagrams at once from which on they are answered in batches."""
TURN: Final = 128
"""Datagrams answered in one call, so that other tasks get their turn; a batch has no more."""
LOOK: Final = 4
"""Calls that find one datagram, after which one looks for a second: to look and find none costs a
lone request more than to build its answer."""


class Responder:
    """The responder of one socket; it never waits."""

    def __init__(self, sock: socket.socket, stats: Stats) -> None:
        self.senders: list[tuple[bytes, bytes]] = []
        """Address and port, as in the packet, of those that the last call answered; of a batch, of
        the first at most."""
        self._sock = sock
        self._stats = stats
        self._plain = PlainResponder(sock, stats)
        self._batched: BatchedResponder | None = None
        self._in_batches = False
        self._alone = 0
        """Calls in a row that have found one datagram."""

    def answer(self) -> bool:
        """Answer what has arrived; return whether there may be more.

        Raises BlockingIOError if there is nothing, and other OSErrors as recvmsg(2) does.
        """
        if self._in_batches:
            if self._batched is None:
                self._batched = BatchedResponder(self._sock, self._stats)
            count = self._batched.answer()
            self.senders = self._batched.senders
            self._in_batches = count >= BURST
            return count >= TURN
        most = 1 if self._alone % LOOK else BURST if BATCHES else TURN
        count = self._plain.answer(most)
        self.senders = self._plain.senders
        self._alone = self._alone + 1 if count == 1 else 0
        more = count == most > 1
        self._in_batches = BATCHES and more
        return more
