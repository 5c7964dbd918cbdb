"""What a mesh peer may send and other clients may not: packets forwarded, watching, closing.

A mesh peer is a client that has shown the mesh key: another relay, or somebody's monitoring. What
it forwards is delivered in this relay or nowhere: to a client of this worker, or of another one.

Another worker of this relay (Connection.sibling) may send the same. What comes from there is for
clients of this worker only, also for those whose keys have yielded, and its packets are counted as
if they had been sent to this worker in the first place.
"""

from typing import Final

import trio

from derp import log
from derp.errors import ClosedByMesh
from derp.metrics import DropReason
from derp.session import presence
from derp.session.client import Client
from derp.wire import forwarding
from derp.wire.frames import KEY_LENGTH, PACKET_OVERHEAD, FrameType, frame
from derp.wire.keys import short_key
from derp.wire.trains import MAX_TRAIN

FRAMES: Final = frozenset(
    {int(FrameType.FORWARD_PACKET), int(FrameType.WATCH_CONNS), int(FrameType.CLOSE_PEER)}
)

_FORWARD_PACKET: Final = int(FrameType.FORWARD_PACKET)
_WATCH_CONNS: Final = int(FrameType.WATCH_CONNS)

logger = log.get("mesh")


def act(peer: Client, what: int, start: int, stop: int, end: int) -> tuple[int, int]:
    """Act on the frame of type `what` from `start` to `stop`, and on those like it up to `end`.

    They lie in the shared read buffer.
    Returns where that ends, and how many packets it was.
    """
    if what == _FORWARD_PACKET:
        return _forwarded(peer, start, end)
    if what == _WATCH_CONNS:
        # It is relays that watch, as soon as they run.
        peer.state.is_back(peer.key)
        presence.watch(peer)
    else:
        _close(peer, bytes(peer.state.view[stop - KEY_LENGTH : stop]))
    return stop, 0


def _forwarded(peer: Client, start: int, end: int) -> tuple[int, int]:
    """Deliver forwarded packets (Go: handleFrameForwardPacket)."""
    state = peer.state
    most = min(state.memory.write_size, MAX_TRAIN)
    found = forwarding.next_forwarded(state.buffer, start, end, most)
    stop, source, destination, packets, run, disco = found
    payload = len(run) - packets * PACKET_OVERHEAD
    if peer.sibling:
        if (client := state.hub.local(destination)) is not None:
            client.deliver(run, packets, payload, source, disco=disco)
        else:
            state.metrics.drop(DropReason.UNKNOWN_DEST, disco, packets, payload)
        return stop, packets
    state.metrics.packets_forwarded_in += packets
    if (client := state.hub.active.get(destination)) is not None:
        client.deliver(run, packets, payload, source, disco=disco)
        return stop, packets
    if (worker := state.hub.siblings.best.get(destination)) is not None:
        worker.forward(memoryview(run), packets, payload, destination, disco=disco)
        return stop, packets
    state.metrics.drop(DropReason.UNKNOWN_DEST_ON_FWD, disco, packets, payload)
    if disco:
        peer.not_here(destination, packets, trio.current_time())
    return stop, packets


def _close(peer: Client, key: bytes) -> None:
    """Disconnect a client (Go: handleFrameClosePeer)."""
    state = peer.state
    found = state.hub.connections(key)
    by = short_key(peer.key)
    if not peer.sibling:
        for worker in state.siblings:
            worker.send_control(frame(FrameType.CLOSE_PEER, key))
    elif not found:
        return
    logger.info(
        "a mesh peer closes a client", peer=by, client=short_key(key), connections=len(found)
    )
    for connection in found:
        connection.end(ClosedByMesh(f"the mesh peer {by} asked for it"))
