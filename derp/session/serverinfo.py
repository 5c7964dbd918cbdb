"""Changes of rate limits: put in force, and told to connected clients in ServerInfo.

Tailscale's client silently drops what exceeds the limit it was told last: untold, a raised limit
would have no effect until the client reconnects.
"""

from collections.abc import Sequence
from typing import Final

import trio
from nacl.public import Box, PublicKey

from derp.admission.policysource import NAME as POLICY
from derp.errors import NotAdmitted
from derp.files.ratelimit import RateConfig
from derp.policy.model import Policy
from derp.relay.tokenbucket import TokenBucket
from derp.session import health
from derp.session.client import Client
from derp.session.isolation import check_group
from derp.session.state import RelayState
from derp.session.turns import in_turns
from derp.wire import login

CLIENTS_PER_TURN: Final = 16
"""Clients told per turn of the event loop: each takes a Curve25519 multiplication."""
KEYS_PER_TURN: Final = 500
"""Keys whose entries are compared per turn."""

Limited = tuple[Client, TokenBucket | None]
"""A client whose limit has changed, and its new bucket."""


def set_limit(state: RelayState, limit: RateConfig) -> list[Limited]:
    """Put the limit of -rate-config in force (Go: UpdateRateLimits); return whom it changes."""
    state.rate_limit = limit
    now = trio.current_time()
    clients = (client for client in state.hub.members if not client.can_mesh)
    changed = [_renew_bucket(state, client, now) for client in clients]
    return [each for each in changed if each is not None]


def apply(state: RelayState, nursery: trio.Nursery, limit: RateConfig) -> None:
    """Put the limit of -rate-config in force; start a task that tells the clients it changes."""
    changed = set_limit(state, limit)
    # From the stop on, the nursery may be over.
    if not state.stopping:
        nursery.start_soon(tell, state, changed)


async def apply_policy(state: RelayState, nursery: trio.Nursery, policy: Policy) -> int:
    """Put a policy in force: end those that it denies or puts into other groups, change limits.

    It holds for new clients from the first turn of the event loop on, and for connected ones when
    this returns. `nursery` owns the task that tells them; a relay that stops tells nobody. Returns
    how many clients it has ended.
    """
    before, state.policy = state.policy, policy
    concerned = await _concerned(state, before, policy)
    changed, ended = [], 0
    async for client in in_turns(state, concerned):
        was_ended = client.ending is not None
        limited = put_in_force(state, client, trio.current_time())
        if limited is not None:
            changed.append(limited)
        ended += client.ending is not None and not was_ended
    if not state.stopping:
        nursery.start_soon(_tell_all, state, concerned, changed)
    return ended


async def _concerned(state: RelayState, before: Policy, after: Policy) -> list[Client]:
    """Return the clients of whom two policies say different things."""
    if before.default != after.default:
        return [*state.hub.members]
    keys = []
    for number, key in enumerate([*(before.entries.keys() | after.entries.keys())], 1):
        if not number % KEYS_PER_TURN:
            await trio.lowlevel.checkpoint()
        if before.of(key) != after.of(key):
            keys.append(key)
    return [client for key in keys for client in state.hub.clients(key)]


def put_in_force(state: RelayState, client: Client, now: float) -> Limited | None:
    """End a client that the policy refuses or puts into another group now.

    Returns it with its bucket if its limit changes.
    """
    if client.can_mesh or client.ending is not None:
        return None
    refused = state.policy.of(client.key).refusal(client.key, state.usage)
    if refused is not None:
        reason = f"no longer admitted by policy: {refused.reason}"
        error = NotAdmitted(reason, source=POLICY, over_quota=refused.over_quota)
        health.end_refused(state, client, error)
        return None
    if check_group(state, client, client.admitted_by):
        return None
    return _renew_bucket(state, client, now)


def _renew_bucket(state: RelayState, client: Client, now: float) -> Limited | None:
    """Give a client whose limit has changed a new bucket."""
    old, limit = client.bucket, state.limit_of(client.key)
    has_changed = bool(limit.bytes_per_second)
    if old is not None:
        has_changed = (old.rate, old.burst) != (limit.bytes_per_second, limit.burst)
    if not has_changed:
        return None
    client.bucket = state.make_bucket(client.key, now)
    return client, client.bucket


async def tell(state: RelayState, changed: Sequence[Limited]) -> None:
    """Tell clients their new limits, except for those whose limit changes again meanwhile."""
    for number, (client, bucket) in enumerate(changed):
        if number % CLIENTS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if client in state.hub.members and client.bucket is bucket:
            limit = state.limit_of(client.key)
            box = Box(state.private_key, PublicKey(client.key))
            info = login.seal_server_info(box, limit.bytes_per_second, limit.announced_burst)
            # Never dropped: only the operator, and the end of a quota, cause these frames.
            client.send_control(info, must=True)
            health.tell(state, client, forgotten=True)


async def _tell_all(
    state: RelayState, concerned: Sequence[Client], changed: Sequence[Limited]
) -> None:
    """Tell clients their new limits, and all `concerned` what is wrong by the new policy."""
    await tell(state, changed)
    async for client in in_turns(state, concerned):
        health.tell(state, client)
