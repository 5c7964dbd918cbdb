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
from derp.wire import login

CLIENTS_PER_TURN: Final = 16
"""Clients told per turn of the event loop: each takes a Curve25519 multiplication."""
LOOKS_PER_TURN: Final = 100
"""Clients looked at per turn."""

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
    nursery.start_soon(tell, state, set_limit(state, limit))


def apply_policy(state: RelayState, nursery: trio.Nursery, policy: Policy) -> int:
    """Put a policy in force: end those that it denies or puts into other groups, change limits.

    Returns how many clients it has ended.
    """
    state.policy = policy
    now = trio.current_time()
    members = [client for client in state.hub.members if client.ending is None]
    changed = [put_in_force(state, client, now) for client in members]
    nursery.start_soon(_tell_all, state, [each for each in changed if each is not None])
    return sum(client.ending is not None for client in members)


def put_in_force(state: RelayState, client: Client, now: float) -> Limited | None:
    """End a client that the policy refuses or puts into another group now.

    Returns it with its bucket if its limit changes.
    """
    if client.can_mesh or client.ending is not None:
        return None
    reason = state.policy.of(client.key).refusal(client.key, state.usage)
    if reason is not None:
        error = NotAdmitted(f"no longer admitted by policy: {reason}", source=POLICY)
        health.end_refused(state, client, error)
        return None
    if check_group(state, client, client.admitted_by):
        return None
    return _renew_bucket(state, client, now)


def _renew_bucket(state: RelayState, client: Client, now: float) -> Limited | None:
    """Give a client whose limit has changed a new bucket."""
    old, new = client.bucket, state.make_bucket(client.key, now)
    if _size(old) == _size(new):
        return None
    client.bucket = new
    return client, new


def _size(bucket: TokenBucket | None) -> tuple[float, float] | None:
    return None if bucket is None else (bucket.rate, bucket.burst)


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


async def _tell_all(state: RelayState, changed: Sequence[Limited]) -> None:
    """Tell clients their new limits, and all clients what is wrong by the new policy."""
    await tell(state, changed)
    for number, client in enumerate([*state.hub.members]):
        if number % LOOKS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if client in state.hub.members:
            health.tell(state, client)
