"""Workers of one relay mesh with each other over unix sockets, by the code that meshes with others.

Each worker dials every other one, at its door: a socket that the parent of all workers listens on
and keeps open, so that who dials waits while a worker is being restarted. What is spoken is plain
DERP. Beyond what is said in derp.mesh, this is different between workers:

- Whoever knocks must be of the same user, and show the secret that the parent has made for this run
  in place of the mesh key. Nobody becomes a sibling by a public port, whatever is shown there.
- All have one key, and none takes another for itself.
- A worker tells the others only of its own clients, with its claim to each (derp.relay.claims),
  and delivers what comes from there to its own clients only: a packet makes one hop at most.
- Its watchers are told of all workers' clients. So a link keeps what it was told.
- No hop between workers is counted, and no worker is one of another's clients: outside, several
  workers look like one relay.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, LoginRefused, NoLink
from derp.mesh.handshake import log_in
from derp.mesh.keeper import RESTARTS, Keeper
from derp.mesh.link import Link
from derp.net.address import Endpoint
from derp.net.backoff import Backoff
from derp.net.descriptors import OUT_OF_RESOURCES
from derp.net.tcp import TCPTransport
from derp.net.transport import Transport
from derp.session import presence, serve
from derp.session.state import RelayState
from derp.wire.frames import KEY_LENGTH
from derp.wire.linkframes import split_claim

FIRST: Final = 0.1
LONGEST: Final = 1.0
"""Seconds between two tries to reach another worker."""

_RETRY_SECONDS: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")
"""Of SO_PEERCRED: process, user and group (Linux: `struct ucred`)."""

logger = log.get("workers")


class SiblingLink(Link):
    """A connection on which this worker is logged in at another one, and watches."""

    __slots__ = ("frames",)

    def __init__(self, state: RelayState, transport: Transport, key: bytes, *, now: float) -> None:
        super().__init__(state, transport, key, now=now)
        self.frames: dict[bytes, bytes] = {}
        """For each key in `present`, the PeerPresent frame that tells of it."""

    async def serve(self, received: bytes) -> None:
        """Hear who comes and goes until the other worker ends; see Link."""
        self.state.siblings[self] = None
        await super().serve(received)

    def _forget(self) -> list[bytes]:
        state = self.state
        del state.siblings[self]
        lost = state.hub.remove_sibling_link(self.present, self)
        self.frames.clear()
        if not state.stopping:
            presence.lost_elsewhere(state, lost)
        return state.hub.watched(lost)

    def _add(self, payload: bytes) -> None:
        """Note that a client is there, or has been heard of there."""
        key = payload[:KEY_LENGTH]
        frame, claim = split_claim(payload)
        self._note(key)
        is_news = self.frames.get(key) != frame
        self.frames[key] = frame
        hub = self.state.hub
        hub.add_sibling(key, self, claim)
        if is_news and key not in hub.active and hub.siblings.best[key] is self:
            presence.came_elsewhere(self.state, key, frame)

    def _remove(self, key: bytes) -> None:
        for member in self.state.hub.remove_sibling(key, self):
            member.peer_disconnected(key)
        if self.frames.pop(key, None) is not None:
            presence.left_elsewhere(self.state, key)


@attrs.define(eq=False)
class SiblingKeeper(Keeper):
    """Keeps the link to another worker."""

    async def _log_in(self, transport: Transport, received: bytes) -> tuple[bytes, bytes] | None:
        return await log_in(self.state, transport, received, sibling=True)

    def _make_link(self, transport: Transport, key: bytes) -> Link:
        return SiblingLink(self.state, transport, key, now=trio.current_time())

    def _tell_of_link(self, link: Link) -> None:
        logger.debug("meshed", other=self.name, address=str(link.transport.remote))

    def _tell_of_loss(self, reason: str, fields: dict[str, int]) -> None:
        # A worker that has not said so has died, or is in trouble.
        if reason != RESTARTS and not self.state.stopping:
            logger.warning("link lost", other=self.name, reason=reason, **fields)


def keepers(state: RelayState, doors: Sequence[bytes], own: int) -> list[Keeper]:
    """Make what keeps the links of worker `own`, one for each other worker.

    `doors` are the abstract addresses of all workers, in their order.
    """
    return [
        SiblingKeeper(
            state,
            f"worker {number}",
            partial(knock, door, number),
            Backoff(first=FIRST, longest=LONGEST),
        )
        for number, door in enumerate(doors)
        if number != own
    ]


async def knock(door: bytes, number: int) -> tuple[Transport, bytes]:
    """Connect to the door of a worker; return the transport, and b"". Raises NoLink."""
    await trio.lowlevel.checkpoint()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(door)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise NoLink(f"its door is closed: {reason}") from error
    return TCPTransport(sock, Endpoint("worker", number), Endpoint("worker", 0)), b""


async def answer(door: socket.socket, state: RelayState, nursery: trio.Nursery) -> NoReturn:
    """Let the other workers in that knock at `door`, a listening socket, which stays open.

    `nursery` owns their tasks.
    """
    door.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(door)
        try:
            sock, _ = door.accept()
        except OSError as error:
            # All else is that nobody knocks any longer.
            if error.errno in OUT_OF_RESOURCES:
                logger.error("can't let a worker in", reason=error.strerror)  # noqa: TRY400
                await trio.sleep(_RETRY_SECONDS)
            continue
        sock.setblocking(False)
        if (user := _user(sock)) != os.geteuid():
            logger.debug("a process of another user has knocked", user=user)
            sock.close()
            continue
        state.poller.add_urgent(sock.fileno())
        nursery.start_soon(_connection, state, sock)


def _user(sock: socket.socket) -> int:
    """Return the user id of the process that has connected."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


async def _connection(state: RelayState, sock: socket.socket) -> None:
    """Serve another worker; the only place where the end of that is told."""
    end: ConnectionEnd | None = None
    transport = TCPTransport(sock, Endpoint("worker", 0), Endpoint("worker", 0))
    try:
        await serve.serve_sibling(state, transport)
    except ConnectionEnd as error:
        end = error.without_frames()
    except Exception:
        # A mistake of ours must end this connection only, and loudly.
        logger.exception("a worker's connection was ended by a bug")
    finally:
        with contextlib.suppress(OSError):
            if (fd := sock.fileno()) >= 0:
                state.poller.drop_urgent(fd)
        transport.close()
    if isinstance(end, LoginRefused):
        logger.warning("refused who has knocked", reason=f"{end.reason}: {end}")
    elif end is not None:
        logger.debug("another worker has gone", reason=f"{end.reason}: {end}")
