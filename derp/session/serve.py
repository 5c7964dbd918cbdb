"""One DERP client's life: log in, join, serve, leave.

The connection task runs `serve` after the handoff, and receives (`derp.session.reader`). Sending
(`derp.session.client`) is done mostly by other clients' tasks.
"""

from typing import Any

import trio

from derp import log
from derp.errors import NotAdmitted
from derp.files.ratelimit import NO_LIMIT
from derp.net.transport import Transport
from derp.relay.pending import Pending
from derp.session import accounting, health
from derp.session.client import Client
from derp.session.isolation import IsolatedClient, IsolatingMeshPeer, put_into_group
from derp.session.login import Login, admit, check_policy, log_in
from derp.session.meshpeer import MeshPeer
from derp.session.reader import Reader
from derp.session.state import RelayState
from derp.wire.frames import PresentFlags
from derp.wire.keys import short_key

logger = log.get("client")


async def serve(
    state: RelayState,
    transport: Transport,
    leftover: bytes,
    fields: dict[str, Any],
    *,
    answer: bytes = b"",
    not_ideal: bool,
    pending: Pending | None = None,
) -> None:
    """Serve one client from its login until it leaves.

    `leftover`: what the client has sent already, at most 64 KiB. `answer`: the HTTP response, sent
    before the first frame. `fields`: those of this connection's log lines; login adds the client's
    key and label, a refusal the label. Raises a ConnectionEnd unless the client closes the
    connection between two frames, or before its login.
    """
    state.metrics.accepts += 1
    login = await log_in(state, transport, leftover, pending, answer)
    if login is None:
        return
    # A mesh peer is trusted, and often not a node of the tailnet.
    can_mesh, source = state.is_mesh_key(login.info.mesh_key), ""
    if not can_mesh:
        try:
            source = await admit(state, transport, login, pending)
            # The policy may have changed since the verdict; no other task runs until the join.
            check_policy(state, transport, login.key)
        except NotAdmitted as error:
            if label := state.policy.of(login.key).label:
                fields["label"] = label
            await health.tell_refused(state, transport, login.greeting, login.key, error)
            raise
    if pending is not None:
        pending.log_in()
    fields["client"] = short_key(login.key)
    if can_mesh:
        fields["mesh"] = "peer"
    elif label := state.policy.of(login.key).label:
        fields["label"] = label
    if source:
        fields["source"] = source

    client = _make_client(state, transport, login, can_mesh=can_mesh, not_ideal=not_ideal)
    if state.isolate and not can_mesh:
        put_into_group(state, client, source)
    state.hub.join(client, state.claim_time())
    state.timers.add(client, client.connected_at)
    try:
        state.presence.joined(client)
        client.send_control(login.welcome(NO_LIMIT if can_mesh else state.limit_of(login.key)))
        health.tell(state, client)
        should_log = state.should_log("joined", fields["client"], transport.remote.host)
        (logger.info if should_log else logger.debug)("joined", **fields)
        rest = login.rest
        # Nothing of the login stays in memory for the long session.
        del leftover, login
        await Reader(state, client).run(rest)
    finally:
        fields |= _leave(state, client)


def _make_client(
    state: RelayState, transport: Transport, login: Login, *, can_mesh: bool, not_ideal: bool
) -> Client:
    now, flags = trio.current_time(), PresentFlags(0)
    if login.info.is_prober:
        flags |= PresentFlags.PROBER
    if not_ideal:
        flags |= PresentFlags.NOT_IDEAL
    if can_mesh:
        flags |= PresentFlags.MESH_PEER
    flags = flags or PresentFlags.REGULAR
    kinds = (IsolatedClient, IsolatingMeshPeer) if state.isolate else (Client, MeshPeer)
    return kinds[can_mesh](
        *(state.send_tasks, state.hub, transport, login.key),
        now=now,
        flags=flags,
        bucket=None if can_mesh else state.make_bucket(login.key, now),
    )


def _leave(state: RelayState, client: Client) -> dict[str, Any]:
    """Have a client leave; return what it has moved, as fields of its log line."""
    moved = accounting.left(state, client)
    if state.on_leave is not None:
        state.on_leave(client)
    state.timers.discard(client)
    notified = state.hub.leave(client)
    state.presence.left(client)
    client.discard_queue()
    for other in notified:
        other.peer_disconnected(client.key)
    return moved
