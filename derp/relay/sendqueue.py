"""The queue for a peer (a client, or another relay) that does not take its packets at once.

The Go derper queues 32 packets a client and drops the oldest of them: long bursts are lost, and a
busy sender's packets push out a quiet one's. Here control frames come first, then presence (for
watchers), then packets by FQ-CoDel (derp.relay.flowqueue): disco ahead of all others, but only for
a part of what is sent, since any packet may look like one.

A send queue exists only while something waits. Its packets count in the memory of all queues
(derp.relay.queuememory), where the longest releases first; for control frames the caller keeps
account.
"""

from collections import deque
from typing import Any, Final

import attrs

from derp.relay.flowqueue import Entry, FlowQueue, OnDrop
from derp.relay.presencequeue import PresenceQueue
from derp.relay.queuememory import MemoryBudget

CONTROL_BYTES: Final = 64 << 10
"""Most bytes of control frames."""
CONTROL_COST: Final = 50
"""Bytes that a control frame counts for besides its own."""
DISCO_SHARE: Final = 4
"""The bytes of a `take` divided by this are for disco packets ahead of all others."""


@attrs.frozen
class Limits:
    """Most bytes of memory that packets may take in one send queue."""

    packets: int
    disco: int
    shared: bool
    """Whether the peer is a relay, by which many clients are reached."""


CLIENT: Final = Limits(packets=1 << 20, disco=64 << 10, shared=False)
LINK: Final = Limits(packets=4 << 20, disco=256 << 10, shared=True)


class SendQueue:
    """Everything that waits for one peer. `on_drop` is called for packets dropped from a head."""

    __slots__ = ("_control", "_control_size", "_disco", "_packets", "presence")

    def __init__(
        self, on_drop: OnDrop, budget: MemoryBudget[Any] | None = None, limits: Limits = CLIENT
    ) -> None:
        budget = MemoryBudget() if budget is None else budget
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._disco = FlowQueue(limits.disco, on_drop, budget, shared=limits.shared)
        self._packets = FlowQueue(limits.packets, on_drop, budget, shared=limits.shared)
        self.presence: PresenceQueue | None = None
        """What a watcher is still to be told; set and bounded by the caller: never dropped."""

    def put_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Queue a control frame; return False where too many wait, unless it `must` be queued."""
        if not must and self._control_size + len(frame) > CONTROL_BYTES:
            return False
        self._control.append(frame)
        self._control_size += len(frame)
        return True

    @property
    def control_held(self) -> int:
        """Bytes of memory that the control frames take."""
        return self._control_size + CONTROL_COST * len(self._control)

    def drop_control(self) -> None:
        """Drop the control frames: the connection is over."""
        self._control.clear()
        self._control_size = 0

    def put(self, train: bytes, packets: int, source: bytes, now: float, *, disco: bool) -> None:
        """Queue a train of `packets` RecvPacket frames from `source`."""
        queue = self._disco if disco else self._packets
        queue.put(Entry(train, packets, source, now, disco=disco))

    def take(self, limit: int, now: float) -> tuple[list[bytes | memoryview], list[Entry]]:
        """Take about `limit` bytes of frames to send next; at least a frame, if any.

        Returns the pieces in order, and for the metrics the entries that some of them came from.
        """
        pieces: list[bytes | memoryview] = []
        size = 0
        while self._control and size < limit:
            pieces.append(self._control.popleft())
            size += len(pieces[-1])
        self._control_size -= size
        if self.presence and size < limit:
            frames = self.presence.take(limit - size)
            pieces += frames
            size += sum(map(len, frames))
        entries: list[Entry] = []
        if self._disco:
            share = limit // DISCO_SHARE if self._packets else limit
            entries = self._disco.take(min(share, limit - size), now)
            size += sum(entry.size for entry in entries)
        packets = self._packets.take(limit - size, now)
        entries += packets
        if self._disco and (rest := limit - size - sum(entry.size for entry in packets)) > 0:
            entries += self._disco.take(rest, now)
        pieces += [
            memoryview(entry.data)[entry.offset :] if entry.offset else entry.data
            for entry in entries
        ]
        return pieces, entries

    def expire(self, now: float, most: int) -> int:
        """Drop at most `most` trains that have waited too long; return how many."""
        dropped = self._disco.expire(now, most)
        return dropped + self._packets.expire(now, most - dropped)

    def waiting(self) -> tuple[int, int]:
        """Return how many packets wait, and the bytes of their frames and of control frames."""
        flows = [*self._disco.flows(), *self._packets.flows()]
        packets = sum(entry.packets for flow in flows for entry in flow.entries)
        return packets, self._control_size + sum(flow.size for flow in flows)

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything, calling `on_drop` for packets."""
        self.drop_control()
        self.presence = None
        self._disco.clear(on_drop)
        self._packets.clear(on_drop)

    def __bool__(self) -> bool:
        return bool(self._control or self.presence or self._disco or self._packets)
