"""Quotas and cloned keys, looked at from time to time: after each flush of the accounts.

A client that has come to be over its quota is throttled or ended; one that is no longer over it
gets its limit back; all are told (derp.session.health).
"""

from typing import Final, NoReturn

import trio

from derp.relay.clones import Clones, Sighting
from derp.session import health, serverinfo
from derp.session.client import Client
from derp.session.serverinfo import Limited
from derp.session.state import RelayState
from derp.session.timers import KEEP_ALIVE, KEEP_ALIVE_JITTER
from derp.session.turns import in_turns
from derp.wire.frames import present_address

REVIEW_EVERY: Final = 15.0
"""Seconds between two looks where there are no accounts, or a flush is late."""
KEYS_PER_TURN: Final = 1000

_KERNELS_TIMEOUT: Final = 960.0
"""Seconds after which Linux gives up a connection by itself (tcp_retries2)."""
_SLACK: Final = 5.0


def grace(user_timeout: float) -> float:
    """Return the seconds for which a connection may last after its client has vanished.

    `user_timeout`: seconds that sent data may go unacknowledged, as -tcp-user-timeout.
    """
    return KEEP_ALIVE + KEEP_ALIVE_JITTER + (user_timeout or _KERNELS_TIMEOUT) + _SLACK


async def run(state: RelayState, clones: Clones) -> NoReturn:
    """Review all clients, for ever."""
    while True:
        with trio.move_on_after(REVIEW_EVERY):
            if state.accounts is None:
                await trio.sleep_forever()
            else:
                await state.accounts.wait_for_flush()
        await review(state, clones)


async def review(state: RelayState, clones: Clones) -> None:
    """Find the cloned keys and the changes of quotas; put these in force, and tell the clients."""
    before = state.cloned
    state.cloned = await _cloned(state, clones)
    changed: list[Limited] = []
    async for client in in_turns(state, _concerned(state, before | state.cloned)):
        limited = serverinfo.put_in_force(state, client, trio.current_time())
        if limited is None:
            health.tell(state, client)
        else:
            changed.append(limited)
    await serverinfo.tell(state, changed)


def _concerned(state: RelayState, cloned: set[bytes]) -> list[Client]:
    """Return the clients with a quota, and those whose keys are, or were, `cloned`."""
    policy = state.policy
    if policy.default.quota is not None:
        return [*state.hub.members]
    limited = {key for key, entry in policy.entries.items() if entry.quota is not None}
    return [client for key in limited | cloned for client in state.hub.clients(key)]


async def _cloned(state: RelayState, clones: Clones) -> set[bytes]:
    hub, links = state.hub, [*state.worker_links]
    keys = {*hub.duplicates}
    if links:
        for number, key in enumerate([*hub.other_workers.best], 1):
            if not number % KEYS_PER_TURN:
                await trio.lowlevel.checkpoint()
            if hub.local(key) is not None:
                keys.add(key)
    shared = [client for key in keys for client in hub.clients(key)]
    here = [
        Sighting(client.key, present_address(client.present_frame()), client.connected_at)
        async for client in in_turns(state, shared)
    ]
    elsewhere = [
        (key, present_address(link.frames[key]))
        for key in keys
        for link in links
        if key in link.frames
    ]
    return clones.find(here, elsewhere, trio.current_time())
