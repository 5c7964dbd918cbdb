"""Telling mesh peers who is connected: all clients when one begins to watch, then every change.

Matches addWatcher and broadcastPeerStateChangeLocked. A watcher that is busy is told of each key
only what is true once it takes that; which change led there, nobody needs to know.

Where a relay has several workers, each tells the others of its own clients only, with its claim to
each key, and its watchers of all workers' clients.
"""

from collections.abc import Collection

from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire.frames import PeerGoneReason, peer_gone
from derp.wire.linkframes import with_claim


def watch(connection: Client) -> None:
    """Tell a mesh peer who is connected, and from now on who comes and goes."""
    state = connection.state
    watchers = state.sibling_watchers if connection.sibling else state.watchers
    itself = connection.key == state.public_key and not connection.sibling
    if itself or connection in watchers:
        # It is this relay itself, which finds that out and leaves; or it asks once more.
        return
    watchers[connection] = None
    connection.update_all()


def joined(connection: Client) -> None:
    """Tell the watchers that a client has come."""
    state = connection.state
    if state.watchers:
        _tell(state, connection.key, connection.presence())
    if state.sibling_watchers:
        _tell_siblings(state, connection)


def heard(connection: Client) -> None:
    """Note that a client whose `duplicate` is set has sent something."""
    state = connection.state
    if state.hub.note_activity(connection, state.claim_time()):
        _tell_siblings(state, connection)


def left(connection: Client) -> None:
    """Tell them that it has gone, unless its key is connected once more."""
    state, key = connection.state, connection.key
    state.watchers.pop(connection, None)
    if state.sibling_watchers:
        if (other := state.hub.local(key)) is not None:
            _tell_siblings(state, other)
        else:
            gone = peer_gone(key, PeerGoneReason.DISCONNECTED)
            for watcher in state.sibling_watchers:
                watcher.update(key, gone)
    if state.watchers and not state.hub.is_here(key):
        _tell_gone(state, key)


def came_elsewhere(state: RelayState, key: bytes, frame: bytes) -> None:
    """Tell the watchers that a client has come to another worker, as `frame` says."""
    _tell(state, key, frame)


def left_elsewhere(state: RelayState, key: bytes) -> None:
    """Tell them that it has left that worker, unless it is connected to this relay all the same."""
    if state.watchers and not state.hub.is_here(key):
        _tell_gone(state, key)


def lost_elsewhere(state: RelayState, keys: Collection[bytes]) -> None:
    """Tell them of all whom this relay has no longer, since a worker is lost.

    They may be many. Those that are back when a watcher takes that are told of as they are then.
    """
    if not keys:
        return
    for watcher in state.watchers:
        watcher.queue_updates(keys)
    state.metrics.peer_gone_disconnected_frames += len(keys) * len(state.watchers)


def _tell(state: RelayState, key: bytes, frame: bytes) -> None:
    for watcher in state.watchers:
        watcher.update(key, frame)


def _tell_gone(state: RelayState, key: bytes) -> None:
    _tell(state, key, peer_gone(key, PeerGoneReason.DISCONNECTED))
    state.metrics.peer_gone_disconnected_frames += len(state.watchers)


def _tell_siblings(state: RelayState, connection: Client) -> None:
    """Tell the other workers of a client, and of this worker's claim to its key."""
    key = connection.key
    frame = with_claim(connection.presence(), state.hub.claim(key))
    for watcher in state.sibling_watchers:
        watcher.update(key, frame)
