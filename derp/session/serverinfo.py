"""Changes of rate limits: put in force, and told to connected clients in ServerInfo.

Tailscale's client silently drops what exceeds the limit it was told last: untold, a raised limit
would have no effect until the client reconnects.
"""

from collections.abc import Sequence
from typing import Final

import trio
from nacl.public import Box, PublicKey

from derp.errors import NotAdmitted
from derp.files.ratelimit import RateConfig
from derp.policy.model import Policy
from derp.relay.tokenbucket import TokenBucket
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire import login

CLIENTS_PER_TURN: Final = 16
"""Clients told per turn of the event loop: each takes a Curve25519 multiplication."""

Limited = tuple[Client, TokenBucket | None]
"""A client whose limit has changed, and its new bucket."""


def set_limit(state: RelayState, limit: RateConfig) -> list[Limited]:
    """Put the limit of -rate-config in force (Go: UpdateRateLimits); return whom it changes."""
    state.rate_limit = limit
    return renew_buckets(state)


def apply(state: RelayState, nursery: trio.Nursery, limit: RateConfig) -> None:
    """Put the limit of -rate-config in force; start a task that tells the clients it changes."""
    nursery.start_soon(_tell, state, set_limit(state, limit))


def apply_policy(state: RelayState, nursery: trio.Nursery, policy: Policy) -> int:
    """Put a policy in force: end the clients that it denies, change the limits of the others.

    Returns how many clients it has ended. Also right for the same policy again, when keys have come
    to be over quota or no longer are.
    """
    state.policy = policy
    ended = 0
    for client in [*state.hub.members]:
        reason = policy.of(client.key).refusal(client.key, state.usage)
        if reason is not None and client.ending is None and not client.can_mesh:
            client.end(NotAdmitted(f"no longer admitted by policy: {reason}"))
            ended += 1
    nursery.start_soon(_tell, state, renew_buckets(state))
    return ended


def renew_buckets(state: RelayState) -> list[Limited]:
    """Give a new bucket to each client whose limit has changed; return them."""
    now = trio.current_time()
    changed: list[Limited] = []
    for client in state.hub.members:
        if client.can_mesh:
            continue
        old, new = client.bucket, state.make_bucket(client.key, now)
        if _size(old) != _size(new):
            client.bucket = new
            changed.append((client, new))
    return changed


def _size(bucket: TokenBucket | None) -> tuple[float, float] | None:
    return None if bucket is None else (bucket.rate, bucket.burst)


async def _tell(state: RelayState, changed: Sequence[Limited]) -> None:
    """Tell clients their new limits, except for those whose limit changes again meanwhile."""
    for number, (client, bucket) in enumerate(changed):
        if number % CLIENTS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if client in state.hub.members and client.bucket is bucket:
            limit = state.limit_of(client.key)
            box = Box(state.private_key, PublicKey(client.key))
            info = login.seal_server_info(box, limit.bytes_per_second, limit.announced_burst)
            # Never dropped: only the operator causes these frames.
            client.send_control(info, must=True)
