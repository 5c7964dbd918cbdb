"""A client that has shown the mesh key: another relay, or a prober such as derpprobe.

Unlike other clients it may forward packets, watch which clients are connected, and close their
connections. Another worker of this relay is a mesh peer, too (`derp.workers.links.WorkerPeer`).

Invariant: no await between a read and the end of `act`; the frames lie in the shared buffer.
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
    """A client that has shown the mesh key."""

    __slots__ = ()

    can_mesh: ClassVar = True

    def act(self, state: RelayState, kind: Kind, start: int, stop: int, end: int) -> int:
        """Act on the frame `state.buffer[start:stop]`, of a type that needs the mesh key.

        Further ForwardPacket frames, up to `end`, may be included. Returns where the last ends.
        """
        if kind is _FORWARD_PACKET:
            max_train = min(state.memory.write_size, MAX_TRAIN)
            found = next_forwarded(state.buffer, start, end, max_train)
            stop, source, destination, packets, train, disco = found
            payload = len(train) - packets * PACKET_OVERHEAD
            self.packets_received += packets
            self.route(train, packets, payload, source, destination, disco, True)
            return stop
        if kind is _WATCH_CONNS:
            # A relay that watches is up, so it can be dialled.
            state.reachable.logged_in(self.key)
            self._watch(state)
        else:
            self._close(state, bytes(state.view[stop - KEY_LENGTH : stop]))
        return stop

    def _watch(self, state: RelayState) -> None:
        # A relay that has dialled itself will notice and leave.
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
