"""The end of a relay: its sockets are closed, its clients told to reconnect, and disconnected.

Tailscale's clients ignore a Restarting frame, and reconnect when their connection ends. So with
`-drain-time` connections are ended one by one over that time, in random order. Without it the
caller ends all at once, after what is queued has been sent.
"""

import random
import socket
from collections.abc import Iterable
from typing import Final

import trio

from derp import log
from derp.errors import RelayStopping
from derp.session import health
from derp.session.state import RelayState
from derp.session.turns import in_turns
from derp.wire.frames import restarting

FLUSH_SECONDS: Final = 3.0
"""Seconds for which a drain waits, at its end, for the queues to be sent."""
RECONNECT_SPREAD_MS: Final = 2000
RECONNECT_SPREAD_PER_CLIENT_MS: Final = 2
"""Each client is told to reconnect at a random moment within RECONNECT_SPREAD_MS, or within
RECONNECT_SPREAD_PER_CLIENT_MS times the number of clients if that is longer: logins take time."""
RELAYS_RECONNECT_MS: Final = 1000
"""When mesh peers and other workers are to reconnect: few, and clients are reached through them."""
TRY_FOR_MS: Final = 10_000
"""How long clients are told to keep trying, from the last of these moments on."""

logger = log.get("server")


def stop_listening(state: RelayState, listeners: Iterable[socket.socket]) -> None:
    """Close sockets; the poller forgets them first, since descriptors are used again."""
    for sock in listeners:
        state.poller.drop_urgent(sock.fileno())
        sock.close()


async def drain(state: RelayState, processes: int = 1, drain_time: float = 0.0) -> None:
    """Tell the clients to reconnect, end them within `drain_time` seconds, and send the queues.

    Each of the relay's `processes` is taken to have as many clients as this one.
    """
    clients = len(state.hub.members)
    logger.info("stopping", clients=clients)
    spread = max(RECONNECT_SPREAD_MS, processes * clients * RECONNECT_SPREAD_PER_CLIENT_MS)
    try_for = spread + TRY_FOR_MS
    async for member in in_turns(state, [*state.hub.members]):
        reconnect_in = RELAYS_RECONNECT_MS
        if not member.can_mesh:
            reconnect_in = random.randrange(spread)  # noqa: S311 -- only spreads load
        health.tell(state, member, before=restarting(reconnect_in, try_for))
    for link in state.presence.worker_watchers:
        link.send_control(restarting(RELAYS_RECONNECT_MS, try_for))
    if drain_time:
        await _end_one_by_one(state, drain_time)
    with trio.move_on_after(FLUSH_SECONDS):
        await state.send_tasks.all_sent()


async def _end_one_by_one(state: RelayState, drain_time: float) -> None:
    """End the clients in random order, evenly over `drain_time` seconds.

    Mesh peers stay, since clients are reached through them; so does a client that has packets
    queued at its turn.
    """
    clients = [member for member in state.hub.members if not member.can_mesh]
    random.shuffle(clients)
    begin = trio.current_time()
    for number, client in enumerate(clients):
        await trio.sleep_until(begin + drain_time * number / len(clients))
        if client in state.hub.members and client.send_queue is None:
            client.end(RelayStopping("the relay is stopping"))
    await trio.sleep_until(begin + drain_time)
