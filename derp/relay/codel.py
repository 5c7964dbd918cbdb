"""CoDel's control law (RFC 8289, section 5), for one sub-queue of a send queue. Sans-I/O.

A queue that only smooths a burst empties within INTERVAL, and nothing is dropped from it. One that
stands (whose head has waited longer than TARGET for a whole INTERVAL) is shortened: one packet is
dropped from the head, the next one INTERVAL / sqrt(2) later, then INTERVAL / sqrt(3), and so on,
until the wait is below TARGET; a sender with congestion control slows down meanwhile.

Time is passed in, in seconds. Packets that came in one train and leave at one time are judged once:
the law would come to the same for each of them.
"""

from math import sqrt
from typing import Final, Protocol

TARGET: Final = 0.02
"""Seconds that a standing queue may delay a packet. RFC 8289 has 5 ms for a router; a relay's event
loop and its peers' TCP need some milliseconds themselves."""
INTERVAL: Final = 0.1
"""Seconds for which a queue may stand: about a round trip between two nodes through the relay."""
UNRESPONSIVE: Final = 1.0
"""Seconds that a queue stands though it is shortened, after which its sender counts as unresponsive
(RFC 7567): it has no congestion control, and the law would need many seconds more to slow it."""
MAX_PACKET: Final = 1500
"""Bytes: where no more than these are left behind the head, the queue does not stand."""


class Queue(Protocol):
    """A queue that the law shortens."""

    @property
    def size(self) -> int:
        """Bytes of the packets that wait."""

    def head_wait(self, now: float) -> float:
        """Return the seconds that the head has waited."""

    def head_size(self) -> int:
        """Return the bytes of the head packet."""

    def drop_head(self) -> None:
        """Drop the head packet."""


class CoDel:
    """The law's state; the names are those of RFC 8289."""

    __slots__ = ("count", "drop_next", "dropping", "first_above_time", "last_count")

    def __init__(self) -> None:
        self.first_above_time = 0.0
        """When the wait will have been above TARGET for an INTERVAL; 0 while it is below."""
        self.dropping = False
        self.drop_next = 0.0
        self.count = 0
        """Packets dropped since `dropping` became true; more if an earlier rate is taken up."""
        self.last_count = 0

    def shorten(self, queue: Queue, now: float) -> None:
        """Drop from the head what is to be dropped before the next packet leaves (`dequeue`)."""
        ok_to_drop = self._ok_to_drop(queue, now)
        if self.dropping:
            self.dropping = ok_to_drop
            while self.dropping and now >= self.drop_next:
                queue.drop_head()
                self.count += 1
                self.dropping = self._ok_to_drop(queue, now)
                if self.dropping:
                    self.drop_next = self._control_law(self.drop_next)
        elif ok_to_drop:
            queue.drop_head()
            self.dropping = True
            # A queue that was shortened lately takes up the rate of drops that worked then.
            delta = self.count - self.last_count
            recent = now - self.drop_next < 16 * INTERVAL
            self.count = delta if delta > 1 and recent else 1
            self.drop_next = self._control_law(now)
            self.last_count = self.count
            self._ok_to_drop(queue, now)

    def stop(self) -> None:
        """Leave the dropping state, since the queue does not stand.

        So it is where the packet that left last had waited little, or had next to nothing behind.
        """
        self.first_above_time = 0.0
        self.dropping = False

    def is_unresponsive(self, now: float) -> bool:
        """Return whether the queue has stood for UNRESPONSIVE seconds longer than allowed."""
        return bool(self.first_above_time) and now - self.first_above_time >= UNRESPONSIVE

    def _ok_to_drop(self, queue: Queue, now: float) -> bool:
        """Return whether the head has been above TARGET for an INTERVAL (`dodequeue`)."""
        if (
            not queue.size
            or queue.head_wait(now) < TARGET
            or queue.size - queue.head_size() <= MAX_PACKET
        ):
            self.first_above_time = 0.0
            return False
        if not self.first_above_time:
            self.first_above_time = now + INTERVAL
            return False
        return now >= self.first_above_time

    def _control_law(self, time: float) -> float:
        return time + INTERVAL / sqrt(self.count)
