"""The receiving half of a logged-in client: from what it sends to what is done about it.

How it works: a `step` reads once and acts on every whole frame; of a frame that is cut off, the
bytes are kept until the next step. Where the client is calm, the poller calls `step`, and the
client's own task sleeps. The task takes over where a step ends with something to wait for: a
rate limit, packets to gather, other tasks that want their turn.

What must never happen here: an await between `read_into` and the end of `act`, since what was
read lies in the buffer that all connections share.
"""

from typing import Final

import trio

from derp.errors import PeerVanished
from derp.metrics import DropReason
from derp.relay.coalescing import ReadCoalescing
from derp.session import meshpeer, presence
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire import frames, trains
from derp.wire.frames import HEADER_LENGTH, PACKET_OVERHEAD, FrameType

HOME_MOVE_AFTER: Final = 5.0
"""Seconds after which a change of home is a move, and not a part of connecting."""
LIMITED_READ: Final = 16 << 10
"""Bytes read at a time from a client with a rate limit, so that it is paused often and briefly."""
MANY_RUNS: Final = 64
"""Runs that one read should hold at most: each costs about as much whatever its size, and the
others wait meanwhile. Where it held more, the next read is smaller."""
MIN_READ: Final = 4 << 10
MOST_RUNS: Final = 512
"""Runs acted on before others have their turn: one read may hold 26,000 frames of five bytes."""
MAX_PONGS: Final = 64
"""Pongs sent in one turn; pings beyond are ignored, as the original ignores too fast ones."""

_LOOK_EVERY: Final = 1.0

_NOTE_PREFERRED: Final = int(FrameType.NOTE_PREFERRED)
_PING: Final = int(FrameType.PING)


class Reader:
    """Reads one client's frames."""

    __slots__ = (
        "_appetite",
        "_behind",
        "_burst",
        "_coalescing",
        "_connection",
        "_moderation",
        "_pause",
        "_skip",
        "_state",
        "_tail",
        "_transport",
        "ended",
    )

    def __init__(self, state: RelayState, connection: Client) -> None:
        self.ended = False
        """Whether the client has closed the connection, in good order."""
        self._state = state
        self._connection = connection
        self._transport = connection.transport
        # The beginning of a frame whose rest has not come, and bytes of a frame still to skip; or
        # what is behind MOST_RUNS.
        self._tail = b""
        self._skip = 0
        self._behind = False
        # The most bytes to read next (0: all that fit), and what to do before.
        self._appetite = 0
        self._moderation = ReadCoalescing()
        self._coalescing = False
        self._pause = 0.0
        # Bytes read since the socket was last empty.
        self._burst = 0

    async def run(self, leftover: bytearray) -> None:
        """Read frames and act on them until the client closes the connection.

        `leftover` is what came with the login; it is emptied, so that nobody keeps it. Raises a
        ConnectionEnd where the client does not leave in good order.
        """
        size = len(leftover)
        self._state.buffer[:size] = leftover
        leftover.clear()
        poller = self._state.poller
        poller.busy_tasks += 1
        try:
            self._act(size)
            while not self.ended:
                if self._pause:
                    await self._wait_out(self._pause)
                    self._pause = 0.0
                if self._behind:
                    await trio.lowlevel.checkpoint()
                    self._act(0)
                elif self._coalescing:
                    await self._transport.coalesce_reads()
                    self.step()
                else:
                    await self._transport.read_through(poller, self.step)
        finally:
            poller.busy_tasks -= 1

    async def _wait_out(self, seconds: float) -> None:
        """Sleep, unless the connection is ended, or its limit changed, meanwhile."""
        self._state.metrics.rate_limit_per_client_waited += 1
        connection = self._connection
        bucket = connection.bucket
        wake = trio.current_time() + seconds
        while (rest := wake - trio.current_time()) > 0 and connection.bucket is bucket:
            await trio.sleep(min(rest, _LOOK_EVERY))
            if connection.ending is not None:
                raise connection.ending

    def step(self) -> bool:
        """Read once and act on it; return whether `run` has to go on itself."""
        state, transport, connection = self._state, self._transport, self._connection
        room = self._appetite if connection.bucket is None else LIMITED_READ
        view = state.view
        if room or self._tail:
            held = len(self._tail)
            view = view[held : held + room] if room else view[held:]
        received = transport.read_into(view)
        if received < 0:
            if self._tail or self._skip:
                raise PeerVanished("the connection was closed in the middle of a frame")
            self.ended = True
            return True
        joined = self._act(received) if received else 0
        if connection.bucket is not None:
            self._pause = connection.bucket.reserve(received, trio.current_time())
            self._coalescing = False
            return self._pause > 0 or transport.more or self._behind
        self._burst += received
        if transport.more or self._behind:
            self._coalescing = False
            return True
        self._coalescing = self._moderation.note_read(joined, self._burst, trio.current_time)
        self._burst = 0
        return self._coalescing

    def _act(self, received: int) -> int:  # noqa: PLR0912 -- one loop over kinds of frames
        """Act on the tail, and on the bytes received, which lie behind it in the shared buffer.

        Returns how many packets were joined to the one before them. Raises ProtocolViolation or
        NotPermitted.
        """
        state, connection = self._state, self._connection
        buffer, view, key = state.buffer, state.view, connection.key
        mesh, most = connection.can_mesh, min(state.memory.write_size, trains.MAX_TRAIN)
        start, end = 0, received
        if tail := self._tail:
            end += len(tail)
            buffer[: len(tail)] = tail
        if self._skip:
            start = min(self._skip, end)
            self._skip -= start
        pongs: list[bytes] = []
        found = total = 0
        try:
            while start < end and found < MOST_RUNS:
                what, stop, destination, packets = trains.next_train(
                    buffer, start, end, key, mesh, most
                )
                if what == trains.INCOMPLETE:
                    break
                found += 1
                if connection.duplicate:
                    presence.heard(connection)
                if packets:
                    total += packets
                    self._relay(view[start:stop], packets, destination, disco=what == trains.DISCO)
                elif what == _PING:
                    if not connection.sibling:
                        state.metrics.got_ping += 1
                    ping = start + HEADER_LENGTH
                    pongs.append(frames.pong(bytes(buffer[ping : ping + frames.PING_LENGTH])))
                elif what == _NOTE_PREFERRED:
                    self._note_preferred(preferred=buffer[stop - 1] != 0)
                elif what in meshpeer.FRAMES:
                    stop, packets = meshpeer.act(connection, what, start, stop, end)
                    total += packets
                elif what == trains.UNKNOWN:
                    state.metrics.unknown_frames += 1
                start = stop
        finally:
            if (
                pongs
                and connection.send_control(b"".join(pongs[:MAX_PONGS]))
                and not connection.sibling
            ):
                state.metrics.sent_pong += len(pongs[:MAX_PONGS])
        if start > end:
            # A frame to skip reaches behind what has come.
            self._skip = start - end
        self._tail = bytes(view[start:end]) if start < end else b""
        self._behind = found == MOST_RUNS and start < end
        self._appetite = (
            max(MIN_READ, MANY_RUNS * min(start, end) // found) if found > MANY_RUNS else 0
        )
        return total - found

    def _relay(self, run: memoryview, packets: int, destination: bytes, *, disco: bool) -> None:
        """Hand a run to its destination, or count it as dropped."""
        state, connection = self._state, self._connection
        metrics = state.metrics
        payload = len(run) - packets * PACKET_OVERHEAD
        metrics.packets_received += packets
        metrics.bytes_received += payload
        if disco:
            metrics.packets_received_disco += packets
        else:
            metrics.packets_received_other += packets
        if (peer := state.hub.active.get(destination)) is not None:
            peer.deliver(run, packets, payload, connection.key, disco=disco)
            return
        if (worker := state.hub.siblings.best.get(destination)) is not None:
            worker.forward(run, packets, payload, destination, disco=disco)
            return
        if (link := state.hub.forwarders.best.get(destination)) is not None:
            metrics.packets_forwarded_out += packets
            link.forward(run, packets, payload, destination, disco=disco)
            return
        metrics.drop(DropReason.UNKNOWN_DEST, disco, packets, payload)
        if disco:
            connection.not_here(destination, packets, trio.current_time())

    def _note_preferred(self, *, preferred: bool) -> None:
        """Note whether this is the client's home, counting moves of established clients."""
        connection, metrics = self._connection, self._state.metrics
        if connection.preferred == preferred:
            return
        connection.preferred = preferred
        if trio.current_time() - connection.connected_at > HOME_MOVE_AFTER:
            if preferred:
                metrics.home_moves_in += 1
            else:
                metrics.home_moves_out += 1
