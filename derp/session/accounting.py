"""The traffic of each client: the kernel's count of its connection's bytes, and its packets.

Nothing is counted per packet but the packets. Bytes are read from the socket when the connection
ends, and, where the relay keeps accounts, at each flush.
"""

from typing import Any, Final

import trio

from derp.accounts.counts import Counts
from derp.session.client import Client
from derp.session.state import RelayState

CLIENTS_PER_TURN: Final = 100
"""Clients whose sockets are asked before other tasks run."""


def total(client: Client, now: float, *, is_over: bool = False) -> Counts:
    """Return what a client has moved since it connected; see Client.note_bytes."""
    client.note_bytes(is_over=is_over)
    milliseconds = round((now - client.connected_at) * 1000)
    return Counts(
        *client.wire_bytes, client.packets_sent, client.packets_received, max(0, milliseconds)
    )


async def collect(state: RelayState) -> None:
    """Add what all clients have moved since the last call to the accounts."""
    for number, client in enumerate([*state.hub.members], 1):
        if client in state.hub.members:
            _account(state, client, total(client, trio.current_time()))
        if not number % CLIENTS_PER_TURN:
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


def left(state: RelayState, client: Client) -> dict[str, Any]:
    """Account for a client that leaves; return the fields of its log line."""
    moved = total(client, trio.current_time(), is_over=True)
    _account(state, client, moved)
    seconds = round(moved.milliseconds / 1000)
    return {"sent": moved.sent, "received": moved.received, "seconds": seconds}


def _account(state: RelayState, client: Client, moved: Counts) -> None:
    if state.accounts is not None:
        state.accounts.add(client.key, moved.minus(client.accounted))
        client.accounted = moved
