"""The responder of one socket: one datagram at a time, or in batches, whichever costs less.

`stun.plain` costs least for a request that comes alone, and is the only choice on a system without
recvmmsg. `stun.batched` costs least for requests that come at once.
"""

import socket
import sys
from typing import Final

from stun.plain import HeaderStripper, PlainResponder
from stun.stats import Stats

if sys.platform == "linux":
    from stun.batched import BatchedResponder

BATCHES: Final = sys.platform == "linux"
"""Whether recvmmsg and sendmmsg are there in the form that `stun.mmsg` knows."""
BURST: Final = 8
"""A call that finds at least this many datagrams makes the next call take a batch."""
MAX_PER_CALL: Final = 128
"""Most datagrams answered in one call, also in a batch, so that other tasks get their turn."""
LOOK_EVERY: Final = 4
"""While datagrams come alone, one call in this many looks for a second datagram: a look that finds
none costs more than building a response."""


class Responder:
    """The responder of one socket; it never waits.

    Behind proxies that send headers it takes no batches: the forms of requests differ there.
    """

    def __init__(
        self, sock: socket.socket, stats: Stats, stripper: HeaderStripper | None = None
    ) -> None:
        self.senders: list[tuple[bytes, bytes]] = []
        """Address and port, as in the packet, of each request that the last call answered; of a
        batch, only the first request's, if that was answered."""
        self._sock = sock
        self._stats = stats
        self._plain = PlainResponder(sock, stats, stripper)
        self._has_batches = BATCHES and not (stripper is not None and stripper.expects_headers)
        self._batched: BatchedResponder | None = None
        self._in_batches = False
        self._alone = 0
        """Calls in a row that have found one datagram."""

    def answer(self) -> bool:
        """Answer some of what has arrived; return whether to look for more at once.

        Raises BlockingIOError if there is nothing, and other OSErrors as recvmsg(2) does.
        """
        if self._in_batches:
            if self._batched is None:
                self._batched = BatchedResponder(self._sock, self._stats)
            count = self._batched.answer()
            self.senders = self._batched.senders
            self._in_batches = count >= BURST
            return count >= MAX_PER_CALL
        most = 1 if self._alone % LOOK_EVERY else BURST if self._has_batches else MAX_PER_CALL
        count = self._plain.answer(most)
        self.senders = self._plain.senders
        self._alone = self._alone + 1 if count == 1 else 0
        more = count == most > 1
        self._in_batches = self._has_batches and more
        return more
