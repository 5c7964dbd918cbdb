"""Telling mesh peers who is connected: all clients when one begins to watch, then every change.

Matches addWatcher and broadcastPeerStateChangeLocked. A watcher that is busy is told of each key
only what is true once it takes that; which change led there, nobody needs to know.
"""

from derp.connection import Connection
from derp.server import Server
from derp.wire.frames import PeerGoneReason, peer_gone


def watch(connection: Connection) -> None:
    """Tell a mesh peer who is connected, and from now on who comes and goes."""
    server = connection.server
    if connection.key == server.public_key or connection in server.watchers:
        # It is this relay itself, which finds that out and leaves; or it asks once more.
        return
    server.watchers[connection] = None
    connection.update_all()


def joined(connection: Connection) -> None:
    """Tell the watchers that a client has come."""
    if connection.server.watchers:
        _tell(connection.server, connection.key, connection.presence())


def left(connection: Connection) -> None:
    """Tell them that it has gone, unless its key is connected once more."""
    server, key = connection.server, connection.key
    server.watchers.pop(connection, None)
    if server.watchers and key not in server.hub.active:
        _tell(server, key, peer_gone(key, PeerGoneReason.DISCONNECTED))
        server.metrics.peer_gone_disconnected_frames += len(server.watchers)


def _tell(server: Server, key: bytes, frame: bytes) -> None:
    for watcher in server.watchers:
        watcher.update(key, frame)
