"""The receiving half of a logged-in client: reads its frames and acts on them.

How it works: a `step` reads once and acts on every whole frame; the bytes of a partial frame are
kept until the next step. While the client is idle, the poller calls `step`, and the client's own
task sleeps. The task takes over where a step ends with something to wait for: a rate limit, or the
turn of other tasks.

Invariant: no await between `read_into` and the end of `_act`: the bytes lie in the shared buffer.
"""

from typing import Final

import trio

from derp.errors import PeerVanished
from derp.session.client import Client
from derp.session.meshpeer import MeshPeer
from derp.session.state import RelayState
from derp.wire import frames, trains
from derp.wire.frames import HEADER_LENGTH, PACKET_OVERHEAD
from derp.wire.trains import DISCO, INCOMPLETE, UNKNOWN, Kind

HOME_MOVE_AFTER: Final = 5.0
"""Seconds from login after which a change of home is a move, not a part of connecting."""
LIMITED_READ: Final = 16 << 10
"""Bytes read at a time from a client with a rate limit, so that it is paused often and briefly."""
TRAINS_PER_READ: Final = 64
"""Trains that one read should hold at most, as each costs about the same whatever its size. After a
read that held more, the next one is smaller."""
MIN_READ: Final = 4 << 10
MAX_FRAMES: Final = 512
"""Trains and other frames acted on before other tasks run: a read may hold thousands."""

_LIMIT_CHECK: Final = 1.0
"""Seconds between checks whether a paused client was ended or its limit changed."""

_NOTE_PREFERRED: Final = Kind.NOTE_PREFERRED
_PING: Final = Kind.PING


class Reader:
    """The reader of one client's frames."""

    __slots__ = (
        "_client",
        "_mesh_peer",
        "_pause",
        "_read_limit",
        "_skip",
        "_state",
        "_tail",
        "_tail_is_due",
        "_transport",
        "ended",
    )

    def __init__(self, state: RelayState, client: Client) -> None:
        self.ended = False
        """Whether the client has closed the connection between two frames."""
        self._state = state
        self._client = client
        self._mesh_peer = client if isinstance(client, MeshPeer) else None
        self._transport = client.transport
        # The beginning of a partial frame, or, if `_tail_is_due`, what follows MAX_FRAMES; and how
        # many bytes of an unknown frame are still to come.
        self._tail = b""
        self._skip = 0
        self._tail_is_due = False
        # Most bytes to read next (0: all that fit), and the seconds to wait first.
        self._read_limit = 0
        self._pause = 0.0

    async def run(self, leftover: bytearray) -> None:
        """Read frames and act on them until the client closes the connection.

        `leftover`: what followed the login; it is cleared, to free the memory. Raises a
        ConnectionEnd unless the client closes the connection between two frames.
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
                    await self._wait_for_limit(self._pause)
                    self._pause = 0.0
                if self._tail_is_due:
                    await trio.lowlevel.checkpoint()
                    self._act(0)
                else:
                    await self._transport.read_through(poller, self.step)
        except PeerVanished:
            # The task that ended the connection from outside knows the reason.
            if self._client.ending is not None:
                raise self._client.ending from None
            raise
        finally:
            poller.busy_tasks -= 1

    async def _wait_for_limit(self, seconds: float) -> None:
        """Sleep until the limit allows more or changes; raise the connection's end, if any."""
        self._state.metrics.rate_limit_per_client_waited += 1
        client, bucket = self._client, self._client.bucket
        wake = trio.current_time() + seconds
        while (rest := wake - trio.current_time()) > 0 and client.bucket is bucket:
            await trio.sleep(min(rest, _LIMIT_CHECK))
            if client.ending is not None:
                raise client.ending

    def step(self) -> bool:
        """Read once and act; return whether `run` takes over. See Transport.read_through."""
        state, transport, client = self._state, self._transport, self._client
        room = self._read_limit if client.bucket is None else LIMITED_READ
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
        if received:
            self._act(received)
        if client.bucket is not None:
            self._pause = client.bucket.reserve(received, trio.current_time())
        return self._pause > 0 or transport.more or self._tail_is_due

    def _act(self, received: int) -> None:  # noqa: PLR0912 -- one loop over kinds of frames
        """Act on the tail and the `received` bytes that follow it in the shared buffer.

        Raises ProtocolViolation or NotPermitted.
        """
        state, client, mesh_peer = self._state, self._client, self._mesh_peer
        buffer, view, metrics, key = state.buffer, state.view, state.metrics, client.key
        mesh, max_train = mesh_peer is not None, min(state.memory.write_size, trains.MAX_TRAIN)
        start, end = 0, received
        if tail := self._tail:
            end += len(tail)
            buffer[: len(tail)] = tail
        if self._skip:
            start = min(self._skip, end)
            self._skip -= start
        pongs: list[bytes] = []
        found = 0
        try:
            while start < end and found < MAX_FRAMES:
                kind, stop, destination, packets = trains.next_train(
                    buffer, start, end, key, mesh, max_train
                )
                if kind is INCOMPLETE:
                    break
                found += 1
                if client.duplicate:
                    state.presence.note_activity(client, state.claim_time())
                if packets:
                    disco = kind is DISCO
                    payload = stop - start - packets * PACKET_OVERHEAD
                    client.packets_received += packets
                    metrics.packets_received += packets
                    metrics.bytes_received += payload
                    if disco:
                        metrics.packets_received_disco += packets
                    client.route(view[start:stop], packets, payload, key, destination, disco, False)
                elif kind is _PING:
                    ping = start + HEADER_LENGTH
                    pongs.append(frames.pong(bytes(buffer[ping : ping + frames.PING_LENGTH])))
                elif kind is _NOTE_PREFERRED:
                    self._note_preferred(preferred=buffer[stop - 1] != 0)
                elif kind is UNKNOWN:
                    metrics.unknown_frames += 1
                elif mesh_peer is not None:
                    stop = mesh_peer.act(state, kind, start, stop, end)
                start = stop
        finally:
            if pongs:
                client.send_pongs(pongs)
        if start > end:
            # An unknown frame ends beyond what was received.
            self._skip = start - end
        self._tail = bytes(view[start:end]) if start < end else b""
        self._tail_is_due = found == MAX_FRAMES and start < end
        self._read_limit = (
            max(MIN_READ, TRAINS_PER_READ * min(start, end) // found)
            if found > TRAINS_PER_READ
            else 0
        )

    def _note_preferred(self, *, preferred: bool) -> None:
        """Note whether this is the client's home, counting moves of established clients."""
        client, metrics = self._client, self._state.metrics
        if client.preferred == preferred:
            return
        client.preferred = preferred
        if trio.current_time() - client.connected_at > HOME_MOVE_AFTER:
            if preferred:
                metrics.home_moves_in += 1
            else:
                metrics.home_moves_out += 1
