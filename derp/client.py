"""One DERP client's whole life: login, join, read and relay, leave.

The task of a connection runs this after the front end has handed the connection off. Writing is
in `derp.connection`, since mostly it is other clients that have something for this one.
"""

from typing import Any, Final

import trio
from nacl.public import Box

from derp import log
from derp.connection import Connection
from derp.errors import LoginRefused, PeerVanished
from derp.metrics import DropReason
from derp.net.transport import Transport
from derp.server import Server
from derp.wire import frames, login, runs
from derp.wire.frames import HEADER_LENGTH, PACKET_OVERHEAD, FrameType
from derp.wire.keys import short

LOGIN_TIMEOUT: Final = 10.0
"""Seconds from the handoff to a complete client info (Go: Server.accept)."""
HOME_MOVE_AFTER: Final = 5.0
"""Seconds after which a change of home is a move, and not a part of connecting."""
LIMITED_READ: Final = 16 << 10
"""Bytes read at a time from a client with a rate limit, so that it is paused often and briefly."""
MANY_RUNS: Final = 64
"""Runs that one read should hold at most: each costs about as much whatever its size, and the
others wait meanwhile. Where it held more, the next read is smaller."""
MIN_READ: Final = 4 << 10
MAX_PONGS: Final = 64
"""Pongs sent for one read; pings beyond are ignored, as the original ignores too fast ones."""

_LOOK_EVERY: Final = 1.0

_NOTE_PREFERRED: Final = int(FrameType.NOTE_PREFERRED)
_PING: Final = int(FrameType.PING)

logger = log.get("client")


async def serve(
    server: Server,
    transport: Transport,
    leftover: bytes,
    fields: dict[str, Any],
    *,
    not_ideal: bool,
) -> None:
    """Serve one client until it leaves.

    `leftover` is what it has sent already, at most 64 KiB. `fields` is what the log says of the
    connection; the client's key joins it at login. Raises a ConnectionEnd where the client does
    not leave in good order.
    """
    server.metrics.accepts += 1
    greeting = frames.server_key(server.public_key)
    if not _is_whole_login(leftover):
        transport.write(greeting)
        greeting = b""
    key, box, rest = await _login(server, transport, leftover)
    del leftover
    now = trio.current_time()
    connection = Connection(server, transport, key, not_ideal=not_ideal, now=now)
    fields["client"] = short(key)
    server.hub.join(connection)
    server.schedule(connection, now)
    try:
        limit = server.rate_limit
        server_info = login.seal_server_info(box, limit.bytes_per_second, limit.burst)
        connection.send_control(greeting + server_info)
        logger.info("joined", **fields)
        try:
            await _read(server, connection, rest)
        except PeerVanished:
            # Whoever ended the connection from outside knows the reason.
            if connection.ending is not None:
                raise connection.ending from None
            raise
    finally:
        server.unschedule(connection)
        told = server.hub.leave(connection)
        connection.discard_queue()
        for member in told:
            member.peer_disconnected(key)


def _is_whole_login(leftover: bytes) -> bool:
    """Whether a fast-starting client has said all: it then gets both answers in one piece."""
    size = login.client_info_size(leftover)
    return size is not None and len(leftover) >= size


async def _login(
    server: Server, transport: Transport, leftover: bytes
) -> tuple[bytes, Box, bytearray]:
    """Read the client's proof of its key. Raises LoginRefused."""
    with trio.move_on_after(LOGIN_TIMEOUT):
        await transport.flush()
        received = bytearray(leftover)
        while (size := login.client_info_size(received)) is None or len(received) < size:
            await transport.wait_readable()
            count = transport.read_into(server.view)
            if count < 0:
                raise PeerVanished("the connection was closed before login")
            received += server.view[:count]
        payload = bytes(received[HEADER_LENGTH:size])
        del received[:size]
        # What the client says of itself matters to mesh peers only, and there is no mesh key.
        key, _, box = login.open_client_info(server.private_key, payload)
        return key, box, received
    raise LoginRefused(f"no client info within {LOGIN_TIMEOUT:.0f} s")


async def _read(server: Server, connection: Connection, leftover: bytearray) -> None:
    """Read frames and act on them until the client closes the connection.

    `leftover` is what came with the login; it is emptied, so that nobody keeps it.
    """
    transport, buffer, view = connection.transport, server.buffer, server.view
    tail = bytes(leftover)
    leftover.clear()
    skip = received = 0
    while True:
        # The shared buffer holds what was just received: no await until it is done with.
        end = len(tail) + received
        buffer[: len(tail)] = tail
        start = min(skip, end)
        skip -= start
        appetite = len(view)
        if start < end:
            start, skip, runs_found = _act(server, connection, start, end)
            if runs_found > MANY_RUNS:
                appetite = max(MIN_READ, MANY_RUNS * end // runs_found)
        tail = bytes(buffer[start:end])

        bucket = connection.bucket
        if bucket is not None and (pause := bucket.reserve(received, trio.current_time())):
            server.metrics.rate_limit_per_client_waited += 1
            await _pause(connection, pause)
        received = 0
        while not received:
            await transport.wait_readable()
            room = LIMITED_READ if connection.bucket else appetite
            received = transport.read_into(view[len(tail) : len(tail) + room])
        if received < 0:
            if tail or skip:
                raise PeerVanished("the connection was closed in the middle of a frame")
            return


async def _pause(connection: Connection, seconds: float) -> None:
    """Sleep, unless the connection is ended meanwhile."""
    wake = trio.current_time() + seconds
    while (rest := wake - trio.current_time()) > 0:
        await trio.sleep(min(rest, _LOOK_EVERY))
        if connection.ending is not None:
            raise connection.ending


def _act(server: Server, connection: Connection, start: int, end: int) -> tuple[int, int, int]:
    """Act on every whole frame in `server.buffer[start:end]`.

    Returns where the first incomplete frame begins, how many bytes behind `end` are to be
    skipped, and how many runs and control frames there were. Raises ProtocolViolation or
    NotPermitted.
    """
    buffer, key = server.buffer, connection.key
    pongs: list[bytes] = []
    found = 0
    try:
        while True:
            what, stop, destination, packets = runs.next_run(buffer, start, end, key)
            if what == runs.INCOMPLETE:
                return start, 0, found
            found += 1
            if connection.duplicate:
                server.hub.heard(connection)
            if packets:
                run = server.view[start:stop]
                _relay(server, connection, destination, run, packets, disco=what == runs.DISCO)
            elif what == runs.UNKNOWN:
                server.metrics.unknown_frames += 1
                if stop > end:
                    return end, stop - end, found
            elif what == _PING:
                server.metrics.got_ping += 1
                ping = start + HEADER_LENGTH
                pongs.append(frames.pong(bytes(buffer[ping : ping + frames.PING_LENGTH])))
            elif what == _NOTE_PREFERRED:
                _note_preferred(server, connection, preferred=buffer[stop - 1] != 0)
            start = stop
    finally:
        if pongs and connection.send_control(b"".join(pongs[:MAX_PONGS])):
            server.metrics.sent_pong += len(pongs[:MAX_PONGS])


def _relay(
    server: Server,
    connection: Connection,
    destination: bytes,
    run: memoryview,
    packets: int,
    *,
    disco: bool,
) -> None:
    """Hand a run to its destination, or count it as dropped."""
    metrics = server.metrics
    payload = len(run) - packets * PACKET_OVERHEAD
    metrics.packets_received += packets
    metrics.bytes_received += payload
    if disco:
        metrics.packets_received_disco += packets
    else:
        metrics.packets_received_other += packets
    if (peer := server.hub.active.get(destination)) is not None:
        peer.deliver(run, packets, payload, connection.key, disco=disco)
        return
    metrics.drop(DropReason.UNKNOWN_DEST, disco, packets, payload)
    if disco:
        now = trio.current_time()
        for _ in range(packets):
            if not connection.peer_not_here(destination, now):
                break


def _note_preferred(server: Server, connection: Connection, *, preferred: bool) -> None:
    """Note whether this is the client's home, counting moves of established clients."""
    if connection.preferred == preferred:
        return
    connection.preferred = preferred
    if trio.current_time() - connection.connected_at > HOME_MOVE_AFTER:
        if preferred:
            server.metrics.home_moves_in += 1
        else:
            server.metrics.home_moves_out += 1
