"""The login at another relay, with the mesh key, and the request to watch.

    ServerKey  ◄──
               ──► ClientInfo (with the mesh key), WatchConns, Ping
    ServerInfo ◄──
    any frame  ◄──   PeerPresent or Pong

The three frames are sent at once, in the Go client's order (derp.Client, WatchConnectionChanges). A
relay with another mesh key takes this relay for a client, and closes the connection at WatchConns,
if not at ClientInfo. The ping makes even a relay without clients answer: so any frame after
ServerInfo shows that the other relay lets this one watch.
"""

from typing import Final

import trio

from derp.config.strconv import quoted
from derp.errors import ConnectionEnd, LoginRefused, NoLink, NotAdmitted, PeerVanished
from derp.mesh.dial import NoLinkAt
from derp.net.transport import Transport, receive
from derp.session.state import RelayState
from derp.wire.frames import (
    HEADER,
    HEADER_LENGTH,
    PING_LENGTH,
    PROTOCOL_VERSION,
    WATCH_CONNS,
    FrameType,
    frame,
)
from derp.wire.login import (
    ClientInfo,
    check_server_info,
    client_box,
    parse_server_key,
    seal_client_info,
)

TIMEOUT: Final = 10.0
"""Seconds for the whole login."""
MAX_GREETING: Final = 1 << 10
"""The longest ServerKey payload (Go: recvServerKey)."""
MAX_SERVER_INFO: Final = 64 << 10
"""The longest ServerInfo payload; Go takes a megabyte."""

_SAME_KEY: Final = "is the mesh key the same on both relays?"


async def log_in(
    state: RelayState,
    transport: Transport,
    received: bytes,
    *,
    worker_key: bytes | None = None,
) -> tuple[bytes, bytes] | None:
    """Log in; return the other relay's key, and the bytes received after the login. Raises NoLink.

    `received`: bytes received already. Another worker is sent `worker_key` as the mesh key, and
    must have this relay's node key. If another relay has this relay's node key, returns None.
    """
    late = NoLink(f"no DERP login within {TIMEOUT:.0f} s")
    with NoLinkAt(trio.current_time() + TIMEOUT, late):
        try:
            frames = _Frames(transport, state.view, received)
            return await _log_in(state, frames, worker_key)
        except LoginRefused as error:
            raise NoLink(str(error), "is it a DERP relay?") from error
    raise late


async def _log_in(
    state: RelayState, frames: "_Frames", worker_key: bytes | None
) -> tuple[bytes, bytes] | None:
    transport = frames.transport
    try:
        greeting = await frames.next(FrameType.SERVER_KEY, MAX_GREETING)
    except ConnectionEnd as error:
        raise NoLink(f"it does not greet: {error}", "is it a DERP relay?") from error
    key = parse_server_key(greeting)
    is_own = key == state.public_key
    if worker_key is None and is_own:
        return None
    if worker_key is not None and not is_own:
        raise LoginRefused("the greeting is not that of a worker of this relay")
    box = client_box(state.private_key, key)
    shown = state.mesh_key if worker_key is None else worker_key
    info = ClientInfo(version=PROTOCOL_VERSION, can_ack_pings=True, mesh_key=shown)
    client_info = seal_client_info(box, state.public_key, info)
    try:
        transport.write(client_info + WATCH_CONNS + frame(FrameType.PING, bytes(PING_LENGTH)))
        await transport.flush()
        check_server_info(box, await frames.next(FrameType.SERVER_INFO, MAX_SERVER_INFO))
    except LoginRefused:
        raise
    except ConnectionEnd as error:
        raise NoLink(f"it refuses the login: {error}", _SAME_KEY) from error
    try:
        return key, await frames.rest()
    except ConnectionEnd as error:
        raise NoLink(f"it refuses to be watched: {error}", _SAME_KEY) from error


class _Frames:
    """A reader of the login's frames, each of an expected type."""

    def __init__(self, transport: Transport, scratch: memoryview, received: bytes) -> None:
        self.transport = transport
        self._scratch = scratch
        self._received = received

    async def next(self, wanted: FrameType, longest: int) -> bytes:
        """Return the payload of the next frame, of type `wanted`. Raises ConnectionEnd."""
        await self._receive(HEADER_LENGTH)
        kind, length = HEADER.unpack_from(self._received)
        if kind not in (wanted, FrameType.HEALTH):
            raise LoginRefused(f"frame of type 0x{kind:02x}, expected {wanted.name}")
        if length > longest:
            raise LoginRefused(f"{wanted.name} frame of {length} bytes is too long")
        stop = HEADER_LENGTH + length
        await self._receive(stop)
        payload, self._received = self._received[HEADER_LENGTH:stop], self._received[stop:]
        if kind == FrameType.HEALTH:
            # A relay of ours says why it refuses (-tell-refused).
            raise NotAdmitted(quoted(payload.decode(errors="replace")))
        return payload

    async def rest(self) -> bytes:
        """Wait for bytes after the frames read; return them. Raises ConnectionEnd."""
        await self._receive(1)
        return self._received

    async def _receive(self, size: int) -> None:
        while len(self._received) < size:
            data = await receive(self.transport, self._scratch[:MAX_SERVER_INFO])
            if not data:
                raise PeerVanished("the connection was closed")
            self._received += data
