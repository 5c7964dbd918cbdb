"""Health frames: clients are told what is wrong with their use of the relay.

`tell` is called wherever a condition may have changed, and sends a frame only if the text has. The
Go derper sends none. Tailscale's client forgets the text at each ServerInfo (magicsock,
runDerpReader).
"""

from contextlib import suppress
from typing import Final

import trio

from derp import log
from derp.admission.policysource import NAME as POLICY
from derp.errors import ConnectionEnd, NotAdmitted
from derp.net.transport import Transport
from derp.policy.amounts import quota_text
from derp.policy.model import Quota
from derp.quantities import rate_set
from derp.relay.health import Conditions, OverQuota, Refusal, text
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire import frames
from derp.wire.keys import short_key

TELL_TIMEOUT: Final = 1.0
"""Seconds for the text to a client that is refused at its login."""
TOLD: Final = "told"
"""The event in the log."""

logger = log.get("client")


def tell(
    state: RelayState, client: Client, *, forgotten: bool = False, before: bytes = b""
) -> None:
    """Tell a client what is wrong now, unless it knows.

    `forgotten`: it was sent a ServerInfo. `before`: a frame to send in any case, in one write with
    the text.
    """
    if not client.can_mesh and client.ending is None:
        said = text(_conditions(state, client.key))
        _send(state, client, said, knows="" if forgotten else client.health, before=before)
    elif before:
        client.send_control(before)


def end_refused(state: RelayState, client: Client, error: NotAdmitted) -> None:
    """End a connected client that is no longer admitted; tell it why, if it may know."""
    if said := _refusal(state, client.key, error):
        _send(state, client, said, knows=client.health)
    client.end(error)


async def tell_refused(
    state: RelayState, transport: Transport, greeting: bytes, key: bytes, error: NotAdmitted
) -> None:
    """Tell a client why it is refused at its login, if it may know.

    `greeting`: what comes before the first frame.
    """
    if not (said := _refusal(state, key, error)):
        return
    # Whatever happens to the text, `error` is why the connection ends.
    with suppress(ConnectionEnd), trio.move_on_after(TELL_TIMEOUT):
        transport.write(greeting + frames.health(said))
        await transport.flush()
        # With bytes unread, the kernel would reset the connection, and the text could be lost.
        transport.read_into(state.view)


def _send(state: RelayState, client: Client, said: str, *, knows: str, before: bytes = b"") -> None:
    """Send a text to a client that `knows` another one; log it if it is news."""
    if said != knows:
        # Never dropped: a text changes seldom.
        client.send_control(before + frames.health(said), must=True)
    elif before:
        client.send_control(before)
    had, client.health = client.health, said
    if said == had or state.stopping:
        return
    name = short_key(client.key)
    if state.should_log(TOLD, name, client.transport.remote.host):
        logger.info(TOLD, client=name, text=said or "all is well again")


def _conditions(state: RelayState, key: bytes) -> Conditions:
    entry = state.policy.of(key)
    over = None
    if entry.quota is not None and entry.over_quota(key, state.usage):
        over = _over_quota(state, key, entry.quota)
    return Conditions(state.stopping, None, over, key in state.cloned)


def _over_quota(state: RelayState, key: bytes, quota: Quota) -> OverQuota:
    throttle = ""
    if quota.throttle is not None and state.limit_of(key) == quota.throttle:
        throttle = rate_set(quota.throttle.bytes_per_second)
    return OverQuota(
        quota_text(quota.size, quota.period),
        "" if state.usage is None else state.usage.until(quota.period),
        throttle,
        refused=quota.throttle is None,
    )


def _refusal(state: RelayState, key: bytes, error: NotAdmitted) -> str:
    """Return what a client is told that is refused with `error`; empty for nothing."""
    if error.over_quota:
        # The policy may have changed since: then the client may be admitted when it comes back.
        quota = state.policy.of(key).quota
        if quota is None or quota.throttle is not None:
            return ""
        return text(Conditions(over_quota=_over_quota(state, key, quota)))
    if not state.tell_refused:
        return ""
    refusal = Refusal.DENIED if error.source == POLICY else Refusal.UNKNOWN
    return text(Conditions(refusal=refusal if error.authoritative else Refusal.UNVERIFIED))
