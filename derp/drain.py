"""The end of a relay that is told to stop: nobody new, and a word to those who are there."""

import random
import socket
from collections.abc import Iterable
from typing import Final

import trio

from derp import log
from derp.server import Server
from derp.wire.frames import restarting

DRAIN_SECONDS: Final = 3.0
"""How long stopping waits for what is queued to be sent."""
RECONNECT_SPREAD_MS: Final = 2000
RECONNECT_SPREAD_PER_CLIENT_MS: Final = 2
"""Clients are told to come back at a random moment within this time: the first, or if they are
many, as much for each as a login may take."""
RELAYS_RECONNECT_MS: Final = 1000
"""Mesh peers and other workers are few, and without them clients of different relays don't meet."""
TRY_FOR_MS: Final = 10_000
"""How long clients are told to go on trying."""

logger = log.get("server")


def stop_listening(server: Server, listeners: Iterable[socket.socket]) -> None:
    """Close sockets, once the poller has forgotten them: others get their numbers."""
    for sock in listeners:
        server.poller.drop_urgent(sock.fileno())
        sock.close()


async def drain(server: Server, processes: int = 1) -> None:
    """Tell the clients that the server goes, and give what is queued a moment to be sent.

    As many come back to the relay's other `processes`.
    """
    clients = len(server.hub.members)
    logger.info("stopping", clients=clients)
    spread = max(RECONNECT_SPREAD_MS, processes * clients * RECONNECT_SPREAD_PER_CLIENT_MS)
    for connection in [*server.hub.members, *server.sibling_watchers]:
        reconnect_in = RELAYS_RECONNECT_MS
        if not connection.can_mesh:
            reconnect_in = random.randrange(spread)  # noqa: S311 -- only spreads load
        connection.send_control(restarting(reconnect_in, spread + TRY_FOR_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await server.all_sent()
