"""The login at another relay: its key, our proof, the mesh key, and the wish to watch.

    ServerKey  ◄──
               ──► ClientInfo (with the mesh key), WatchConns, Ping
    ServerInfo ◄──
    anything   ◄──   a PeerPresent or the Pong

All three frames go at once, as the Go client sends them (derp.Client, WatchConnectionChanges). A
relay that does not know the mesh key closes the connection at WatchConns, if not at ClientInfo,
since it then takes this relay for a client. The ping is for what comes after: it makes a relay
answer that has nothing to tell. So the link begins when there is something to read on it.
"""

from typing import Final

import trio

from derp.errors import ConnectionEnd, LoginRefused, NoLink, PeerVanished
from derp.mesh.dial import before
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
"""Seconds for all of it."""
MAX_GREETING: Final = 1 << 10
"""The longest ServerKey payload (Go: recvServerKey)."""
MAX_SERVER_INFO: Final = 64 << 10
"""The longest ServerInfo payload; Go takes a megabyte."""

_SAME_KEY: Final = "is the mesh key the same on both relays?"


async def log_in(
    state: RelayState, transport: Transport, received: bytes, *, sibling: bool = False
) -> tuple[bytes, bytes] | None:
    """Log in; return the other relay's key, and what has come for the link.

    `received` has come already. None where the other relay is this one itself. `sibling`: it has to
    be another worker of this relay, which is shown what only workers know. Raises NoLink.
    """
    late = NoLink(f"no DERP login within {TIMEOUT:.0f} s")
    with before(trio.current_time() + TIMEOUT, late):
        try:
            frames = _Frames(transport, state.view, received)
            return await _log_in(state, frames, sibling=sibling)
        except LoginRefused as error:
            raise NoLink(str(error), "is it a DERP relay?") from error
    raise late


async def _log_in(
    state: RelayState, frames: "_Frames", *, sibling: bool
) -> tuple[bytes, bytes] | None:
    transport = frames.transport
    try:
        greeting = await frames.next(FrameType.SERVER_KEY, MAX_GREETING)
    except ConnectionEnd as error:
        raise NoLink(f"it does not greet: {error}", "is it a DERP relay?") from error
    key = parse_server_key(greeting)
    if sibling and key != state.public_key:
        raise LoginRefused("the greeting is none of a worker of this relay")
    if key == state.public_key and not sibling:
        return None
    mesh_key = state.sibling_key if sibling else state.mesh_key
    box = client_box(state.private_key, key)
    info = ClientInfo(version=PROTOCOL_VERSION, can_ack_pings=True, mesh_key=mesh_key)
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
        raise NoLink(f"it refuses to tell who is connected: {error}", _SAME_KEY) from error


class _Frames:
    """The frames of the login, each of which has to be the one that is due."""

    def __init__(self, transport: Transport, scratch: memoryview, received: bytes) -> None:
        self.transport = transport
        self._scratch = scratch
        self._received = received

    async def next(self, kind: FrameType, longest: int) -> bytes:
        """Return the payload of the next frame. Raises ConnectionEnd."""
        await self._have(HEADER_LENGTH)
        found, length = HEADER.unpack_from(self._received)
        if found != kind:
            raise LoginRefused(f"frame of type 0x{found:02x}, expected {kind.name}")
        if length > longest:
            raise LoginRefused(f"{kind.name} frame of {length} bytes is too long")
        stop = HEADER_LENGTH + length
        await self._have(stop)
        payload, self._received = self._received[HEADER_LENGTH:stop], self._received[stop:]
        return payload

    async def rest(self) -> bytes:
        """Return what has come behind those frames, at least a byte. Raises ConnectionEnd."""
        await self._have(1)
        return self._received

    async def _have(self, size: int) -> None:
        while len(self._received) < size:
            data = await receive(self.transport, self._scratch[:MAX_SERVER_INFO])
            if not data:
                raise PeerVanished("the connection was closed")
            self._received += data
