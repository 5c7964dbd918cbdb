"""The login of a client: greeting, proof of the client's key, admission.

    ServerKey  ──►
               ◄──  ClientInfo
    ServerInfo ──►

A fast-starting client sends ClientInfo with its HTTP request; then both answers are one write. To
any other, ServerKey is one write with the answer to its request.
"""

import time
from typing import Final

import attrs
import trio
from nacl.public import Box

from derp.admission.checker import VERDICT_TIMEOUT
from derp.admission.model import Admission, Question, Verdict, not_admitted
from derp.admission.policysource import NAME as POLICY
from derp.errors import LoginRefused, NotAdmitted, PeerVanished
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.net.budgets import ReadBudget
from derp.net.transport import Transport
from derp.relay.pending import EVICTABLE_AFTER, Pending
from derp.session.state import RelayState
from derp.wire.frames import HEADER_LENGTH, server_key
from derp.wire.keys import node_public_text
from derp.wire.login import ClientInfo, client_info_size, open_client_info, seal_server_info

LOGIN_TIMEOUT: Final = 10.0
"""Seconds from the handoff to a whole ClientInfo (Go: Server.accept)."""
VERDICT_WAIT: Final = VERDICT_TIMEOUT - EVICTABLE_AFTER
"""Seconds by which a client that waits for a verdict counts as accepted later. So it is evicted as
the oldest only when its verdict is overdue; sooner only where its site holds by far the most."""


@attrs.frozen
class Login:
    """A client that has proved its key."""

    key: bytes
    info: ClientInfo
    greeting: bytes
    """The ServerKey frame; empty where it was sent already."""
    rest: bytearray
    """Bytes that followed ClientInfo."""
    _box: Box

    def welcome(self, limit: RateConfig = NO_LIMIT) -> bytes:
        """Return the answer to the login: `greeting`, and ServerInfo with the rate limit."""
        info = seal_server_info(self._box, limit.bytes_per_second, limit.announced_burst)
        return self.greeting + info


async def log_in(
    state: RelayState,
    transport: Transport,
    leftover: bytes,
    pending: Pending | None = None,
    answer: bytes = b"",
) -> Login | None:
    """Greet a client and read its ClientInfo; return None if it leaves first, as health checks do.

    `leftover`: what the client has sent already. `answer`: the HTTP response, sent with the
    greeting. Raises PeerVanished and LoginRefused.
    """
    greeting = server_key(state.public_key)
    received = bytearray(leftover)
    if answer or not _is_whole(received):
        transport.write(answer + greeting)
        greeting = b""
        with trio.move_on_after(LOGIN_TIMEOUT) as deadline:
            await transport.flush()
            if not await _receive_info(state, transport, received, pending):
                return None
        if deadline.cancelled_caught:
            await transport.wait_turn()
            raise LoginRefused(f"no client info within {LOGIN_TIMEOUT:.0f} s")
    size = client_info_size(received)
    payload = bytes(received[HEADER_LENGTH:size])
    del received[:size]
    key, info, box = open_client_info(state.private_key, payload)
    return Login(key, info, greeting, received, box)


def _is_whole(received: bytearray) -> bool:
    """Return whether a whole ClientInfo frame has been received. Raises LoginRefused."""
    size = client_info_size(received)
    return size is not None and len(received) >= size


async def _receive_info(
    state: RelayState, transport: Transport, received: bytearray, pending: Pending | None
) -> bool:
    """Add to `received` until ClientInfo is whole; return False if the client leaves first."""
    budget = ReadBudget()
    while not _is_whole(received):
        await transport.wait_readable()
        count = transport.read_into(state.view)
        if count < 0:
            if not received:
                return False
            raise PeerVanished("the connection was closed in the middle of the login")
        if not budget.spend(count):
            raise LoginRefused("the client info comes in too many pieces")
        received += state.view[:count]
        if pending is not None:
            pending.hold(len(received) + transport.held)
    return True


async def admit(
    state: RelayState, transport: Transport, login: Login, pending: Pending | None
) -> str:
    """Ask whether the client may use the relay (Go: verifyClient).

    Returns the source that admits it, empty where all may. Raises NotAdmitted if it may not,
    NoRoom, and PeerVanished if it is evicted meanwhile.
    """
    key = login.key
    if state.admission is None:
        return ""
    question = Question(key, transport.remote.host)
    verdict = state.admission.known(question)
    if verdict is None:
        verdict = await _ask(state.admission, question, state, transport, login, pending)
    if not verdict.admitted:
        _note_refusal(state, transport, key, verdict.source, verdict.reason)
        reason = f"{node_public_text(key)} is refused by {verdict.source}: {verdict.reason}"
        raise not_admitted(verdict, reason)
    if not verdict.authoritative:
        state.unverified.add(key)
    return verdict.source


async def _ask(
    admission: Admission,
    question: Question,
    state: RelayState,
    transport: Transport,
    login: Login,
    pending: Pending | None,
) -> Verdict:
    """Wait for a verdict. Raises as `admit`."""
    with trio.CancelScope() as scope:
        if pending is not None:
            pending.cancel = scope.cancel
            buffered = len(login.rest) + transport.held
            pending.begin_verdict(trio.current_time() + VERDICT_WAIT, buffered)
        with state.poller.without_busy_polling():
            verdict = await admission.admit(question)
        # Many clients may have waited for the same verdict.
        await transport.wait_turn()
    if scope.cancelled_caught:
        raise PeerVanished("the connection was closed before the verdict")
    return verdict


def check_policy(state: RelayState, transport: Transport, key: bytes) -> None:
    """Raise NotAdmitted if the policy in force denies the key of a client."""
    if (refused := state.policy.of(key).refusal(key, state.usage)) is not None:
        _note_refusal(state, transport, key, POLICY, refused.reason)
        reason = f"{node_public_text(key)} is refused by policy: {refused.reason}"
        raise NotAdmitted(reason, source=POLICY, over_quota=refused.over_quota)


def _note_refusal(
    state: RelayState, transport: Transport, key: bytes, source: str, reason: str
) -> None:
    state.refusals.note(key, time.time(), transport.remote.host, source, reason)
