"""Links between the workers of one relay, over unix sockets, by the code that meshes relays.

Each worker dials every other one at its listening socket, which the supervisor keeps open, so that
a dialler waits while a worker restarts. The protocol is plain DERP. Differences from derp.mesh:

- A worker peer is a process of the same user; it shows the worker key, a secret that the supervisor
  makes at each start, instead of the mesh key. No public port leads here.
- All workers have the same node key; a link to that key is no link to oneself.
- A worker tells the others of its own clients only, with its claim to each (derp.relay.claims), and
  delivers the others' packets to its own clients only: a packet makes one hop at most.
- Watchers are told of all workers' clients, so a link keeps the PeerPresent frames.
- No hop between workers is counted, and no worker peer is a member of the hub: to others, several
  workers look like one relay.
"""

import contextlib
import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, LoginRefused, NoLink
from derp.mesh.keeper import RESTARTING, Keeper
from derp.mesh.link import Link
from derp.mesh.login import log_in
from derp.metrics import DropReason
from derp.net.address import Endpoint
from derp.net.backoff import Backoff
from derp.net.descriptors import OUT_OF_RESOURCES
from derp.net.oserrors import reason
from derp.net.peercred import peer_process
from derp.net.tcp import TCPTransport
from derp.net.transport import Transport
from derp.session import login
from derp.session.meshpeer import MeshPeer
from derp.session.presence import watch
from derp.session.reader import Reader
from derp.session.state import RelayState
from derp.wire.frames import HEADER_LENGTH, KEY_LENGTH, PeerGoneReason, peer_gone
from derp.wire.linkframes import split_claim, with_claim
from derp.wire.trains import Train

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 1.0
"""Seconds between two tries to reach another worker."""

_RETRY_SECONDS: Final = 1.0

logger = log.get("workers")


class WorkerPeer(MeshPeer):
    """Another worker that is logged in here; it is no member of the hub.

    Its packets go to clients of this worker only, passive ones included, and are counted as if
    their senders were connected here.
    """

    __slots__ = ()

    def route(
        self,
        train: Train,
        packets: int,
        payload: int,
        source: bytes,
        destination: bytes,
        disco: bool,
        forwarded: bool,  # noqa: ARG002 -- always True
    ) -> None:
        """Deliver a train to its destination, or drop it."""
        if (client := self.hub.local(destination)) is not None:
            client.deliver(train, packets, payload, source, disco)
        else:
            self.metrics.drop(DropReason.UNKNOWN_DEST, disco, packets, payload)

    def update_all(self) -> None:
        """Tell this worker peer of every client of this worker."""
        self.queue_updates(self.hub.keys(local=True))

    def _frame_of(self, key: bytes) -> bytes:
        if (client := self.hub.local(key)) is not None:
            return with_claim(client.present_frame(), self.hub.claim(key))
        return peer_gone(key, PeerGoneReason.DISCONNECTED)

    def _watch(self, state: RelayState) -> None:
        watch(state.presence.worker_watchers, self)

    def _close(self, state: RelayState, key: bytes) -> None:  # noqa: ARG002 -- not to other workers
        if self.hub.clients(key):
            self._close_here(key)

    def _count_updates(self, changes: int) -> None:
        """Count nothing: without workers there would be no such peer."""

    def _count_pings(self, received: int, answered: int) -> None:
        """Count nothing."""


async def serve_worker(state: RelayState, transport: Transport) -> None:
    """Serve another worker of this relay. Raises a ConnectionEnd unless it ends in good order."""
    found = await login.log_in(state, transport, b"")
    if found is None:
        return
    if found.key != state.public_key or not state.is_worker_key(found.info.mesh_key):
        raise LoginRefused("it is no worker of this relay")
    now = trio.current_time()
    peer = WorkerPeer(state.send_tasks, state.hub, transport, found.key, now=now)
    # Without keep-alives, the link at the other end times out.
    state.timers.add_keep_alive(peer, now)
    try:
        peer.send_control(found.welcome())
        await Reader(state, peer).run(found.rest)
    finally:
        state.timers.discard(peer)
        state.presence.worker_watchers.pop(peer, None)
        peer.discard_queue()


class WorkerLink(Link):
    """A connection by which this worker is logged in at another one, and watches."""

    __slots__ = ("frames",)

    def __init__(self, state: RelayState, transport: Transport, key: bytes, *, now: float) -> None:
        super().__init__(state, transport, key, now=now)
        self.frames: dict[bytes, bytes] = {}
        """The PeerPresent frame of each key in `present`."""

    async def serve(self, received: bytes) -> None:
        """Read presence until the link ends; see Link."""
        self.state.worker_links[self] = None
        await super().serve(received)

    def _remove_all(self) -> list[bytes]:
        state = self.state
        del state.worker_links[self]
        lost = state.hub.remove_claims(self.present, self)
        self.frames.clear()
        if not state.stopping:
            state.presence.tell_all_gone(lost)
        return state.hub.watched(lost)

    def _add(self, payload: bytes) -> None:
        """Add the key and claim of a PeerPresent frame: its client joined or became active."""
        key = payload[:KEY_LENGTH]
        frame, claim = split_claim(payload)
        self._add_present(key)
        differs = self.frames.get(key) != frame
        self.frames[key] = frame
        self._note_group(key, frame[HEADER_LENGTH:])
        hub = self.state.hub
        hub.add_claim(key, self, claim)
        if differs and key not in hub.active and hub.other_workers.best[key] is self:
            self.state.presence.tell(key, frame)

    def _remove(self, key: bytes) -> None:
        for client in self.state.hub.remove_claim(key, self):
            client.peer_disconnected(key)
        if self.frames.pop(key, None) is not None:
            self.state.presence.tell_if_gone(key)


@attrs.define(eq=False)
class WorkerKeeper(Keeper):
    """The task that keeps one link to another worker."""

    async def _log_in(self, transport: Transport, received: bytes) -> tuple[bytes, bytes] | None:
        return await log_in(self.state, transport, received, worker_key=self.state.worker_key)

    def _make_link(self, transport: Transport, key: bytes) -> Link:
        return WorkerLink(self.state, transport, key, now=trio.current_time())

    def _log_link(self, link: Link) -> None:
        logger.debug("meshed", other=self.name, address=str(link.transport.remote))

    def _log_loss(self, reason: str, fields: dict[str, int]) -> None:
        # Without the announcement of a restart, the other worker has died or is in trouble.
        if reason != RESTARTING and not self.state.stopping:
            logger.warning("link lost", other=self.name, reason=reason, **fields)


def keepers(state: RelayState, addresses: Sequence[bytes], own: int) -> list[Keeper]:
    """Make the keepers of the links from worker `own` to each other worker.

    `addresses` are the abstract unix addresses of all workers, by index.
    """
    return [
        WorkerKeeper(
            state,
            f"worker {number}",
            partial(dial_worker, address, number),
            Backoff(first=FIRST_DELAY, longest=LONGEST_DELAY),
        )
        for number, address in enumerate(addresses)
        if number != own
    ]


async def dial_worker(address: bytes, number: int) -> tuple[Transport, bytes]:
    """Connect to a worker; return the transport, and no received bytes. Raises NoLink."""
    await trio.lowlevel.checkpoint()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(address)
    except OSError as error:
        sock.close()
        raise NoLink(f"it can't be dialled: {reason(error)}") from error
    return TCPTransport(sock, Endpoint("worker", number), Endpoint("worker", 0)), b""


async def accept_workers(
    listener: socket.socket, state: RelayState, nursery: trio.Nursery
) -> NoReturn:
    """Accept the other workers' connections; `nursery` owns their tasks, `listener` stays open."""
    listener.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            sock, _ = listener.accept()
        except OSError as error:
            # Any other error means that the dialler has gone.
            if error.errno in OUT_OF_RESOURCES:
                logger.error("can't accept a worker's connection", reason=error.strerror)  # noqa: TRY400
                await trio.sleep(_RETRY_SECONDS)
            continue
        sock.setblocking(False)
        process = peer_process(sock)
        user = None if process is None else process.uid
        if user != os.geteuid():
            logger.debug("refused a process of another user", user=user)
            sock.close()
            continue
        state.poller.add_urgent(sock.fileno())
        nursery.start_soon(_connection, state, sock)


async def _connection(state: RelayState, sock: socket.socket) -> None:
    """Serve another worker; the only place where its end is logged."""
    end: ConnectionEnd | None = None
    transport = TCPTransport(sock, Endpoint("worker", 0), Endpoint("worker", 0))
    try:
        await serve_worker(state, transport)
    except ConnectionEnd as error:
        end = error.without_traceback()
    except Exception:
        # A bug must end this connection only, and must be logged.
        logger.exception("a worker's connection was ended by a bug")
    finally:
        with contextlib.suppress(OSError):
            if (fd := sock.fileno()) >= 0:
                state.poller.drop_urgent(fd)
        transport.close()
    if isinstance(end, LoginRefused):
        logger.warning("refused a login that is no worker's", reason=f"{end.reason}: {end}")
    elif end is not None:
        logger.debug("another worker disconnected", reason=f"{end.reason}: {end}")
