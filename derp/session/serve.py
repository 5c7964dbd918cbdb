"""One DERP client's whole life: login, join, read and relay, leave.

The task of a connection runs this after the front end has handed the connection off. What the
client sends is in `derp.session.reader`; what is sent to it in `derp.session.client`, since mostly
it is other clients that have something for this one.
"""

from typing import Any, Final

import trio
from nacl.public import Box

from derp import log
from derp.admission.model import Question
from derp.errors import LoginRefused, NotAdmitted, PeerVanished
from derp.files.ratelimit import NO_LIMIT
from derp.net.budgets import ReadBudget
from derp.net.transport import Transport
from derp.relay.pending import Pending
from derp.session import presence
from derp.session.client import Client
from derp.session.reader import Reader
from derp.session.state import RelayState
from derp.wire import frames, login
from derp.wire.frames import HEADER_LENGTH
from derp.wire.keys import node_public_text, short_key
from derp.wire.login import ClientInfo

LOGIN_TIMEOUT: Final = 10.0
"""Seconds from the handoff to a complete client info (Go: Server.accept)."""

VERDICT_WAIT: Final = 7.0
"""Seconds for which a client that waits for a verdict makes room for nobody, unless its network has
by far the most connections."""

logger = log.get("client")


async def serve(
    state: RelayState,
    transport: Transport,
    leftover: bytes,
    fields: dict[str, Any],
    *,
    not_ideal: bool,
    pending: Pending | None = None,
) -> None:
    """Serve one client until it leaves, if it logs in at all.

    `leftover` is what it has sent already, at most 64 KiB. `fields` is what the log says of the
    connection; the client's key joins it at login. `pending` stands for the connection until then.
    Raises a ConnectionEnd where the client does not leave in good order.
    """
    state.metrics.accepts += 1
    greeting = frames.server_key(state.public_key)
    if not _is_whole_login(leftover):
        transport.write(greeting)
        greeting = b""
    proof = await _login(state, transport, leftover, pending)
    if proof is None:
        return
    key, info, box, rest = proof
    del leftover, proof
    # A mesh peer is trusted, and often no node of the tailnet.
    can_mesh = state.is_mesh_key(info.mesh_key)
    if not can_mesh:
        await _admit(state, transport, key, pending)
    if pending is not None:
        pending.log_in()
    now = trio.current_time()
    connection = Client(
        state,
        transport,
        key,
        now=now,
        not_ideal=not_ideal,
        prober=info.is_prober,
        can_mesh=can_mesh,
    )
    del info
    fields["client"] = short_key(key)
    if can_mesh:
        fields["mesh"] = "peer"
    state.hub.join(connection, state.claim_time())
    state.schedule(connection, now)
    try:
        presence.joined(connection)
        limit = NO_LIMIT if can_mesh else state.rate_limit
        server_info = login.seal_server_info(box, limit.bytes_per_second, limit.announced_burst)
        connection.send_control(greeting + server_info)
        # What follows is long: keep nothing of the login for it.
        del box, greeting, server_info, limit
        is_worth_a_line = state.is_worth_a_line("joined", fields["client"], transport.remote.host)
        (logger.info if is_worth_a_line else logger.debug)("joined", **fields)
        await _read(connection, rest)
    finally:
        state.unschedule(connection)
        told = state.hub.leave(connection)
        presence.left(connection)
        connection.discard_queue()
        for member in told:
            member.peer_disconnected(key)


async def serve_sibling(state: RelayState, transport: Transport) -> None:
    """Serve another worker of this relay, which is no client: nobody is told of it.

    What comes by a public port must never get here. Raises a ConnectionEnd where the worker does
    not leave in good order.
    """
    transport.write(frames.server_key(state.public_key))
    proof = await _login(state, transport, b"")
    if proof is None:
        return
    key, info, box, rest = proof
    if key != state.public_key or not state.is_sibling_key(info.mesh_key):
        raise LoginRefused("it is no worker of this relay")
    now = trio.current_time()
    connection = Client(state, transport, key, now=now, can_mesh=True)
    connection.sibling = True
    # Without them an idle link would not last.
    state.schedule_keep_alive(connection, now)
    try:
        connection.send_control(login.seal_server_info(box))
        await _read(connection, rest)
    finally:
        state.unschedule(connection)
        state.sibling_watchers.pop(connection, None)
        connection.discard_queue()


async def _read(connection: Client, rest: bytearray) -> None:
    try:
        await Reader(connection.state, connection).run(rest)
    except PeerVanished:
        # Whoever ended the connection from outside knows the reason.
        if connection.ending is not None:
            raise connection.ending from None
        raise


async def _admit(
    state: RelayState, transport: Transport, key: bytes, pending: Pending | None
) -> None:
    """Let nobody in who does not belong (Go: verifyClient). Raises NotAdmitted.

    Raises PeerVanished where `pending` is ended meanwhile.
    """
    if state.admission is None:
        return
    with trio.CancelScope() as scope:
        if pending is not None:
            pending.cancel = scope.cancel
            pending.wait_for_verdict(trio.current_time() + VERDICT_WAIT)
        verdict = await state.admission.admit(Question(key, transport.remote.host))
        # One answer may be what many wait for.
        await transport.wait_turn()
    if scope.cancelled_caught:
        raise PeerVanished("the connection was closed before the answer")
    if not verdict.admitted:
        whose = node_public_text(key)
        reason = f"{whose} is refused by {verdict.source}: {verdict.reason}"
        raise NotAdmitted(reason, authoritative=verdict.authoritative)
    if not verdict.authoritative:
        state.unasked.add(key)


def _is_whole_login(leftover: bytes) -> bool:
    """Whether a fast-starting client has said all: it then gets both answers in one piece."""
    size = login.client_info_size(leftover)
    return size is not None and len(leftover) >= size


async def _login(
    state: RelayState, transport: Transport, leftover: bytes, pending: Pending | None = None
) -> tuple[bytes, ClientInfo, Box, bytearray] | None:
    """Read the client's proof of its key; None if it leaves without a byte of it.

    Health checks do, which want to know no more than whether DERP is served. Raises PeerVanished
    and LoginRefused.
    """
    with trio.move_on_after(LOGIN_TIMEOUT):
        await transport.flush()
        received = bytearray(leftover)
        budget = ReadBudget()
        while (size := login.client_info_size(received)) is None or len(received) < size:
            await transport.wait_readable()
            count = transport.read_into(state.view)
            if count < 0:
                if not received:
                    return None
                raise PeerVanished("the connection was closed in the middle of the login")
            if not budget.spend(count):
                raise LoginRefused("the client info comes in too many pieces")
            received += state.view[:count]
            if pending is not None:
                pending.hold(len(received) + transport.held)
        payload = bytes(received[HEADER_LENGTH:size])
        del received[:size]
        key, info, box = login.open_client_info(state.private_key, payload)
        return key, info, box, received
    await transport.wait_turn()
    raise LoginRefused(f"no client info within {LOGIN_TIMEOUT:.0f} s")
