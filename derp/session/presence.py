"""Telling mesh peers who is connected: all clients when one begins to watch, then every change.

Matches addWatcher and broadcastPeerStateChangeLocked. A watcher that is busy is told of each key
only what is true once it takes that; which change led there, nobody needs to know.

Where a relay has several workers, each tells the others of its own clients only, with its claim to
each key, and its watchers of all workers' clients.
"""

from collections.abc import Collection

from derp.session.client import Connection
from derp.session.state import Server
from derp.wire.frames import PeerGoneReason, peer_gone
from derp.wire.linkframes import with_claim


def watch(connection: Connection) -> None:
    """Tell a mesh peer who is connected, and from now on who comes and goes."""
    server = connection.server
    watchers = server.sibling_watchers if connection.sibling else server.watchers
    itself = connection.key == server.public_key and not connection.sibling
    if itself or connection in watchers:
        # It is this relay itself, which finds that out and leaves; or it asks once more.
        return
    watchers[connection] = None
    connection.update_all()


def joined(connection: Connection) -> None:
    """Tell the watchers that a client has come."""
    server = connection.server
    if server.watchers:
        _tell(server, connection.key, connection.presence())
    if server.sibling_watchers:
        _tell_siblings(server, connection)


def heard(connection: Connection) -> None:
    """Note that a client whose `duplicate` is set has sent something."""
    server = connection.server
    if server.hub.heard(connection, server.claim_time()):
        _tell_siblings(server, connection)


def left(connection: Connection) -> None:
    """Tell them that it has gone, unless its key is connected once more."""
    server, key = connection.server, connection.key
    server.watchers.pop(connection, None)
    if server.sibling_watchers:
        if (other := server.hub.local(key)) is not None:
            _tell_siblings(server, other)
        else:
            gone = peer_gone(key, PeerGoneReason.DISCONNECTED)
            for watcher in server.sibling_watchers:
                watcher.update(key, gone)
    if server.watchers and not server.hub.is_here(key):
        _tell_gone(server, key)


def came_elsewhere(server: Server, key: bytes, frame: bytes) -> None:
    """Tell the watchers that a client has come to another worker, as `frame` says."""
    _tell(server, key, frame)


def left_elsewhere(server: Server, key: bytes) -> None:
    """Tell them that it has left that worker, unless it is connected to this relay all the same."""
    if server.watchers and not server.hub.is_here(key):
        _tell_gone(server, key)


def lost_elsewhere(server: Server, keys: Collection[bytes]) -> None:
    """Tell them of all whom this relay has no longer, since a worker is lost.

    They may be many. Those that are back when a watcher takes that are told of as they are then.
    """
    if not keys:
        return
    for watcher in server.watchers:
        watcher.queue_updates(keys)
    server.metrics.peer_gone_disconnected_frames += len(keys) * len(server.watchers)


def _tell(server: Server, key: bytes, frame: bytes) -> None:
    for watcher in server.watchers:
        watcher.update(key, frame)


def _tell_gone(server: Server, key: bytes) -> None:
    _tell(server, key, peer_gone(key, PeerGoneReason.DISCONNECTED))
    server.metrics.peer_gone_disconnected_frames += len(server.watchers)


def _tell_siblings(server: Server, connection: Connection) -> None:
    """Tell the other workers of a client, and of this worker's claim to its key."""
    key = connection.key
    frame = with_claim(connection.presence(), server.hub.claim(key))
    for watcher in server.sibling_watchers:
        watcher.update(key, frame)
