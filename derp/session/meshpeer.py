"""A client that has shown the mesh key: another relay, or somebody's monitoring.

Beyond what other clients send it may send packets that it forwards, watch who is connected, and
close clients' connections. A packet that it forwards is for a client of this relay, or dropped.
"""

from typing import ClassVar, Final

from derp import log
from derp.errors import ClosedByMesh
from derp.session.client import Client
from derp.session.presence import watch
from derp.session.state import RelayState
from derp.wire.forwarding import next_forwarded
from derp.wire.frames import KEY_LENGTH, PACKET_OVERHEAD, FrameType, frame
from derp.wire.keys import short_key
from derp.wire.trains import MAX_TRAIN, Kind

_FORWARD_PACKET: Final = Kind.FORWARD_PACKET
_WATCH_CONNS: Final = Kind.WATCH_CONNS

logger = log.get("mesh")


class MeshPeer(Client):
    """A client that is trusted."""

    __slots__ = ()

    can_mesh: ClassVar = True

    def act(
        self, state: RelayState, kind: Kind, start: int, stop: int, end: int
    ) -> tuple[int, int]:
        """Act on the frame at `start`, of a type that takes the mesh key.

        It ends at `stop`, and lies in the shared read buffer. ForwardPacket frames up to `end` that
        follow it may be included. Returns where the frames end, and how many packets they were.
        """
        if kind is _FORWARD_PACKET:
            most = min(state.memory.write_size, MAX_TRAIN)
            found = next_forwarded(state.buffer, start, end, most)
            stop, source, destination, packets, train, disco = found
            payload = len(train) - packets * PACKET_OVERHEAD
            self.route(train, packets, payload, source, destination, disco, True)
            return stop, packets
        if kind is _WATCH_CONNS:
            # Relays watch as soon as they run.
            state.reachable.logged_in(self.key)
            self._watch(state)
        else:
            self._close(state, bytes(state.view[stop - KEY_LENGTH : stop]))
        return stop, 0

    def _watch(self, state: RelayState) -> None:
        # This relay itself, if it has dialled itself, finds that out and leaves.
        if self.key != state.public_key:
            watch(state.presence.watchers, self)

    def _close(self, state: RelayState, key: bytes) -> None:
        """Disconnect a client (Go: handleFrameClosePeer)."""
        for worker in state.worker_links:
            worker.send_control(frame(FrameType.CLOSE_PEER, key))
        self._close_here(key)

    def _close_here(self, key: bytes) -> None:
        clients, by = self.hub.clients(key), short_key(self.key)
        logger.info(
            "a mesh peer closes a client", peer=by, client=short_key(key), connections=len(clients)
        )
        for client in clients:
            client.end(ClosedByMesh(f"the mesh peer {by} asked for it"))
