"""Turns: work on thousands of clients, with other tasks run in between."""

from collections.abc import AsyncIterator, Iterable
from typing import Final

import trio

from derp.session.client import Client
from derp.session.state import RelayState

LOOKS_PER_TURN: Final = 50
"""Clients looked at before other tasks run."""


async def in_turns(state: RelayState, clients: Iterable[Client]) -> AsyncIterator[Client]:
    """Yield the clients that are still connected when it is their turn.

    `clients` must not change meanwhile.
    """
    for number, client in enumerate(clients, 1):
        if not number % LOOKS_PER_TURN:
            await trio.lowlevel.checkpoint()
        if client in state.hub.members:
            yield client
    await trio.lowlevel.checkpoint()
