"""Isolated clients: those of different groups can't reach each other through the relay (-isolate).

A packet for a client of another group is dropped, and the sender is told what it would be told if
that client were not connected. That a client has left is told only to those who got packets from
it. Workers and relays tell each other the group of each key with its presence. The groups of sender
and destination are compared

    within a relay         by the sender's worker
    from relay to relay    by the sender's, and again by the one that gets the packet, as the other
                           may be another program; what comes from a key whose group is not told is
                           dropped

Without -isolate, none of this is on the packet path.
"""

import sys

import trio

from derp.errors import GroupChanged
from derp.metrics import DropReason
from derp.relay.groups import NO_GROUP
from derp.session.client import Client, ClientHub
from derp.session.meshpeer import MeshPeer
from derp.session.state import RelayState
from derp.wire.trains import Train


class IsolatedClient(Client):
    """A client that reaches those of its own group only, and mesh peers."""

    __slots__ = ()

    def route(
        self,
        train: Train,
        packets: int,
        payload: int,
        source: bytes,
        destination: bytes,
        disco: bool,
        forwarded: bool,
    ) -> None:
        """Hand a train to its destination, or drop it; see Client."""
        client = self.hub.active.get(destination)
        if client is not None and client.group == self.group:
            client.deliver(train, packets, payload, source, disco)
        elif _group_of(self.hub, destination, self.group) == self.group:
            super().route(train, packets, payload, source, destination, disco, forwarded)
        else:
            self.metrics.drop(DropReason.ISOLATED, disco, packets, payload)
            if disco:
                self._answer_not_here(destination, packets, trio.current_time())


class IsolatingMeshPeer(MeshPeer):
    """A relay whose clients reach those of their groups only; or a monitor, which reaches all."""

    __slots__ = ()

    def route(
        self,
        train: Train,
        packets: int,
        payload: int,
        source: bytes,
        destination: bytes,
        disco: bool,
        forwarded: bool,
    ) -> None:
        """Hand a train to its destination, or drop it; see Client."""
        if forwarded:
            link = self.hub.forwarders.best.get(source)
            group = None if link is None else link.groups.get(source)
            if not group or _group_of(self.hub, destination, group) != group:
                self.metrics.packets_forwarded_in += packets
                self.metrics.drop(DropReason.ISOLATED, disco, packets, payload)
                return
        super().route(train, packets, payload, source, destination, disco, forwarded)


def _group_of(hub: ClientHub, key: bytes, group: bytes) -> bytes:
    """Return the group of a key; `group` where nobody is separated: of mesh peers, and if unknown.

    A key that is connected, but whose group is not told, has none.
    """
    if (client := hub.active.get(key)) is not None:
        return group if client.can_mesh else client.group
    if (worker_link := hub.other_workers.best.get(key)) is not None:
        return worker_link.groups.get(key, NO_GROUP)
    if (relay_link := hub.forwarders.best.get(key)) is not None:
        return relay_link.groups.get(key, NO_GROUP)
    return group


def put_into_group(state: RelayState, client: Client, source: str) -> None:
    """Put a client that `source` has admitted into its group, before it joins."""
    # One text for all clients of the source.
    client.admitted_by = sys.intern(source)
    client.group = state.group_of(client.key, source)


def check_group(state: RelayState, client: Client, source: str) -> bool:
    """End a client that belongs to another group now, by the policy or if `source` admits it.

    Returns whether it is ended.
    """
    is_checked = state.isolate and not client.can_mesh and client.ending is None
    if not is_checked or client.group == state.group_of(client.key, source):
        return False
    client.end(GroupChanged("it belongs to another group now, and may log in again"))
    return True
