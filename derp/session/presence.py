"""Presence as watchers are told it: all connected clients at first, then every change.

Matches addWatcher and broadcastPeerStateChangeLocked, but a busy watcher is told only the last
state of each key. Each worker tells its watchers of all workers' clients, and the other workers of
its own clients and its claims to their keys.
"""

from collections.abc import Collection

from derp.metrics import Metrics
from derp.session.client import Client, ClientHub
from derp.wire.frames import PeerGoneReason, peer_gone
from derp.wire.linkframes import with_claim


class Presence:
    """The watchers of one process."""

    def __init__(self, hub: ClientHub, metrics: Metrics) -> None:
        self.watchers: dict[Client, None] = {}
        """The mesh peers to tell of all clients of this relay."""
        self.worker_watchers: dict[Client, None] = {}
        """The worker peers to tell of this worker's clients."""
        self._hub = hub
        self._metrics = metrics

    def joined(self, client: Client) -> None:
        """Tell the watchers that a client has joined."""
        if self.watchers:
            self.tell(client.key, client.present_frame())
        if self.worker_watchers:
            self._tell_workers(client)

    def note_activity(self, client: Client, now: int) -> None:
        """Note that a client whose `duplicate` is set has sent something; `now` as for Hub.join."""
        if self._hub.note_activity(client, now):
            self._tell_workers(client)

    def left(self, client: Client) -> None:
        """Tell the watchers that a client has left, unless its key is still connected."""
        key = client.key
        self.watchers.pop(client, None)
        if self.worker_watchers:
            if (other := self._hub.local(key)) is not None:
                self._tell_workers(other)
            else:
                gone = peer_gone(key, PeerGoneReason.DISCONNECTED)
                for watcher in self.worker_watchers:
                    watcher.update(key, gone)
        self.tell_if_gone(key)

    def tell(self, key: bytes, frame: bytes) -> None:
        """Send or queue the presence of `key` for the watchers; `frame` as for Client.update."""
        for watcher in self.watchers:
            watcher.update(key, frame)

    def tell_if_gone(self, key: bytes) -> None:
        """Tell the watchers that a key is gone, unless it is still connected to this relay."""
        if self.watchers and not self._hub.is_here(key):
            self.tell(key, peer_gone(key, PeerGoneReason.DISCONNECTED))
            self._metrics.peer_gone_disconnected_frames += len(self.watchers)

    def tell_all_gone(self, keys: Collection[bytes]) -> None:
        """Queue for the watchers that `keys`, perhaps many, are gone, unless they come back."""
        if not keys:
            return
        for watcher in self.watchers:
            watcher.queue_updates(keys)
        self._metrics.peer_gone_disconnected_frames += len(keys) * len(self.watchers)

    def _tell_workers(self, client: Client) -> None:
        """Send the other workers the presence of a client, with this worker's claim to its key."""
        key = client.key
        frame = with_claim(client.present_frame(), self._hub.claim(key))
        for watcher in self.worker_watchers:
            watcher.update(key, frame)


def watch(watchers: dict[Client, None], watcher: Client) -> None:
    """Add a new watcher to `watchers`, and tell it which clients are connected."""
    if watcher not in watchers:
        watchers[watcher] = None
        watcher.update_all()
