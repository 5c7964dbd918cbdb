"""Changes of the rate limit: put in force, and told to connected clients in ServerInfo.

Tailscale's client silently drops what exceeds the limit it was told last: untold, a raised limit
would have no effect until the client reconnects.
"""

from typing import Final

import trio
from nacl.public import Box, PublicKey

from derp.files.ratelimit import RateConfig
from derp.session.state import RelayState
from derp.wire import login

CLIENTS_PER_TURN: Final = 16
"""Clients told per turn of the event loop: each takes a Curve25519 multiplication."""


def set_limit(state: RelayState, limit: RateConfig) -> None:
    """Put a limit in force for every client (Go: UpdateRateLimits)."""
    state.rate_limit = limit
    now = trio.current_time()
    for client in state.hub.members:
        client.bucket = None if client.can_mesh else state.make_bucket(now)


def apply(state: RelayState, nursery: trio.Nursery, limit: RateConfig) -> None:
    """Put a limit in force; if it differs from the old one, start a task that tells clients."""
    differs = limit != state.rate_limit
    set_limit(state, limit)
    if differs:
        nursery.start_soon(_tell, state, limit)


async def _tell(state: RelayState, limit: RateConfig) -> None:
    """Tell all clients of a limit, unless another one comes meanwhile."""
    for number, client in enumerate([*state.hub.members]):
        if number % CLIENTS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
            if state.rate_limit is not limit:
                return
        if client in state.hub.members and not client.can_mesh:
            box = Box(state.private_key, PublicKey(client.key))
            info = login.seal_server_info(box, limit.bytes_per_second, limit.announced_burst)
            # Never dropped: only the operator causes these frames.
            client.send_control(info, must=True)
