"""The commands of an operator to a running relay: disconnect, deny, allow, limit a client.

Denying, allowing and limiting are changes of the policy in force, which are written into the file
of -policy where there is one.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import attrs
import trio

from derp import log
from derp.admission.policykeeper import NO_FILE, InForce, PolicyRequest, change_policy
from derp.errors import ClosedByOperator, SteeringFailed
from derp.policy.amounts import UNLIMITED
from derp.policy.change import Change
from derp.session.state import RelayState
from derp.wire.control import workers_text
from derp.wire.keys import node_public_text, short_key

logger = log.get("steer")


class Ended(NamedTuple):
    """Connections that were ended."""

    connections: int
    silent: Sequence[int] = ()
    """The numbers of the workers that did not answer, which may have ended some, too."""


EndClients = Callable[[bytes], Awaitable[Ended]]
"""Ends all connections of a key."""
IsMesh = Callable[[bytes], Awaitable[bool]]
"""Returns whether a key is connected as a relay of the mesh."""


@attrs.frozen
class Steered:
    """The result of a command that was carried out."""

    sentence: str
    """For the operator: what was done, and how long it holds."""
    ended: int = 0
    """Connections that were ended."""


class Steering(Protocol):
    """A running relay, as an operator may steer it; `key` is a node key, 32 bytes.

    `by` says who asked, for the log. Each call raises SteeringFailed, with one line for the
    operator, if nothing was done.
    """

    async def kick(self, key: bytes, by: str) -> Steered:
        """End the connections of a key, which may connect again."""

    async def deny(self, key: bytes, by: str) -> Steered:
        """Refuse a key from now on, whatever the other sources say, and end its connections."""

    async def allow(self, key: bytes, by: str) -> Steered:
        """Admit a key from now on, whatever the other sources say."""

    async def limit(self, key: bytes, rate: str | None, by: str) -> Steered:
        """Limit what a key sends: a rate as in the policy file, or None for none of its own."""


class RelaySteering:
    """The Steering of a relay, in the process that keeps its policy."""

    def __init__(
        self,
        end_clients: EndClients,
        is_mesh: IsMesh,
        to_keeper: trio.MemorySendChannel[PolicyRequest],
    ) -> None:
        """Send changes of the policy to its keeper (derp.admission.policykeeper)."""
        self._end_clients = end_clients
        self._is_mesh = is_mesh
        self._to_keeper = to_keeper

    async def kick(self, key: bytes, by: str) -> Steered:
        """See Steering."""
        ended, silent = await self._end_clients(key)
        rest = f"; {workers_text(silent)} did not answer: try again" if silent else ""
        if not ended:
            raise SteeringFailed(
                f"{node_public_text(key)} is not connected{rest}; derper clients lists who is"
            )
        _log("disconnected by an operator", key, by, connections=ended)
        sentence = (
            f"{node_public_text(key)} is disconnected ({_connections(ended)}), "
            f"and may connect again; derper deny keeps it out{rest}"
        )
        return Steered(sentence, ended)

    async def deny(self, key: bytes, by: str) -> Steered:
        """See Steering."""
        change = Change(key, allowed=False)
        found = await self._change(change)
        _log("denied by an operator", key, by, found, connections=found.ended)
        what = f"{node_public_text(key)} is denied ({_connections(found.ended)} ended)"
        return Steered(_sentence(what, change, found), found.ended)

    async def allow(self, key: bytes, by: str) -> Steered:
        """See Steering."""
        change = Change(key, allowed=True)
        found = await self._change(change)
        _log("allowed by an operator", key, by, found)
        what = f"{node_public_text(key)} is allowed"
        return Steered(_sentence(what, change, found), found.ended)

    async def limit(self, key: bytes, rate: str | None, by: str) -> Steered:
        """See Steering."""
        try:
            change = Change(key, rate=rate)
        except ValueError as error:
            raise SteeringFailed(f"rate {rate!r:.100}: {error}") from None
        found = await self._change(change)
        _log("limited by an operator", key, by, found, rate=rate or "none")
        what = f"{node_public_text(key)} may send {rate}"
        if rate == UNLIMITED:
            what = f"{node_public_text(key)} has no limit"
        elif rate is None:
            what = f"{node_public_text(key)} has no limit of its own"
        return Steered(_sentence(what, change, found), found.ended)

    async def _change(self, change: Change) -> InForce:
        """Put a change in force. Raises SteeringFailed."""
        if await self._is_mesh(change.key):
            raise SteeringFailed(
                f"{node_public_text(change.key)} is a relay of the mesh, which no policy binds; "
                "change the mesh key to keep it out"
            )
        return await change_policy(self._to_keeper, change)


async def is_mesh(state: RelayState, key: bytes) -> bool:
    """Return whether a key is connected to this process as a relay of the mesh."""
    await trio.lowlevel.checkpoint()
    return any(client.can_mesh for client in state.hub.clients(key))


async def end_clients(state: RelayState, key: bytes) -> Ended:
    """End the connections of a key to this process."""
    await trio.lowlevel.checkpoint()
    found = [client for client in state.hub.clients(key) if client.ending is None]
    for client in found:
        client.end(ClosedByOperator("disconnected by an operator"))
    return Ended(len(found))


def _sentence(what: str, change: Change, found: InForce) -> str:
    if found.path is not None:
        return f"{what}, which stands in {found.path} now"
    if not found.reason:
        return what
    said = [f"{name} = {value}" for name, value in change.assignments.items() if value is not None]
    if not said:
        return f"{what} until the relay stops: {found.reason}"
    entry = f'{" and ".join(said)} under [clients."{node_public_text(change.key)}"]'
    where = "into that file by hand"
    if found.reason == NO_FILE:
        where = "into a file, and start the relay with -policy and its path"
    return f"{what} until the relay stops: {found.reason}; to keep it, put {entry} {where}"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _log(event: str, key: bytes, by: str, found: InForce | None = None, **more: object) -> None:
    file = None if found is None or found.path is None else str(found.path)
    reason = None if found is None else found.reason or None
    logger.info(
        event,
        client=short_key(key),
        key=node_public_text(key),
        by=by,
        **more,
        file=file,
        only_until_stop=reason,
    )
