"""The rate limit, told to those who are connected whenever it changes.

Tailscale's client drops what exceeds the limit that it was told last, silently. So whoever is
connected has to be told of each change: a raised limit would not count otherwise, and a lifted one
would stay in force until the client reconnects.
"""

from typing import Final

import trio
from nacl.public import Box, PublicKey

from derp.files.ratelimit import RateConfig
from derp.session.state import RelayState
from derp.wire import login

CLIENTS_A_TURN: Final = 16
"""Clients told in one turn of the event loop: each takes a multiplication on Curve25519."""


def apply(state: RelayState, nursery: trio.Nursery, limit: RateConfig) -> None:
    """Put a limit in force for every client now, and have a task tell them if it is another one."""
    is_news = limit != state.rate_limit
    state.set_rate_limit(limit)
    if is_news:
        nursery.start_soon(_tell, state, limit)


async def _tell(state: RelayState, limit: RateConfig) -> None:
    """Tell all clients of a limit, unless another one comes meanwhile."""
    for number, member in enumerate([*state.hub.members]):
        if number % CLIENTS_A_TURN == 0:
            await trio.lowlevel.checkpoint()
            if state.rate_limit is not limit:
                return
        if member in state.hub.members and not member.can_mesh:
            box = Box(state.private_key, PublicKey(member.key))
            info = login.seal_server_info(box, limit.bytes_per_second, limit.announced_burst)
            # As many as the operator brings about.
            member.send_control(info, must=True)
