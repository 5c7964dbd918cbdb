"""The commands of an operator to a running relay: disconnect, deny, allow, limit a client.

Denying, allowing and limiting are changes of the policy in force, which are written into the file
of -policy where there is one. Without one, a key that is allowed is added to the allow-list.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import attrs
import trio

from derp import log
from derp.admission.policykeeper import NO_FILE, InForce, PolicyRequest, change_policy
from derp.errors import ClosedByOperator, ListNotWritten, SteeringFailed
from derp.policy.amounts import UNLIMITED
from derp.policy.change import Change
from derp.service.keylist import KeyList
from derp.session.state import RelayState
from derp.wire.control import Command, workers_text
from derp.wire.keys import node_public_text, short_key

logger = log.get("steer")


class Ended(NamedTuple):
    """Connections that were ended."""

    connections: int
    silent: Sequence[int] = ()
    """The numbers of the workers that did not answer, which may have ended some, too."""


_EVENTS: Final = {
    "kick": "disconnected by an operator",
    "deny": "denied by an operator",
    "allow": "allowed by an operator",
    "limit": "limited by an operator",
}
"""What the log says of each action."""

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


Steer = Callable[[Command, str], Awaitable[Steered]]
"""Does what an operator wants; the text says who asked, for the log.

Raises SteeringFailed, with one line for the operator, if nothing was done.
"""


class RelaySteering:
    """The steering of a relay, in the process that keeps its policy."""

    def __init__(
        self,
        end_clients: EndClients,
        is_mesh: IsMesh,
        to_keeper: trio.MemorySendChannel[PolicyRequest],
        key_list: KeyList | None = None,
    ) -> None:
        """Send changes of the policy to its keeper (derp.admission.policykeeper).

        `key_list` is the list that has the keys which are allowed; None for the policy.
        """
        self._end_clients = end_clients
        self._is_mesh = is_mesh
        self._to_keeper = to_keeper
        self._list = key_list

    async def steer(self, command: Command, by: str) -> Steered:
        """Do what an operator wants: a Steer.

        kick ends the connections of the key, which may connect again. deny refuses it from now on,
        whatever the other sources say, and ends them. allow admits it, whatever the others say.
        limit limits what each of its connections sends.
        """
        if command.action == "kick":
            return await self._kick(command.key, by)
        denied_in = self._list if command.action == "deny" else None
        if denied_in is not None and command.label is None:
            # Its line in the list goes.
            command = attrs.evolve(command, label=denied_in.label_of(command.key))
        change = _change_of(command)
        found = await self._change(change)
        more: dict[str, object] = {}
        if command.action == "deny":
            more["connections"] = found.ended
        if command.action == "limit":
            more["rate"] = command.rate or "none"
        _log(_EVENTS[command.action], command.key, by, found, **more)
        sentence = self._sentence(_done(command, found), change, found)
        if denied_in is not None:
            # Else the key would be admitted again once the relay stops.
            sentence += await denied_in.remove(command.key)
        return Steered(sentence, found.ended)

    async def _kick(self, key: bytes, by: str) -> Steered:
        ended, silent = await self._end_clients(key)
        rest = f"; {workers_text(silent)} did not answer: try again" if silent else ""
        if not ended:
            raise SteeringFailed(
                f"{node_public_text(key)} is not connected{rest}; derper clients lists who is"
            )
        _log(_EVENTS["kick"], key, by, connections=ended)
        sentence = (
            f"{node_public_text(key)} is disconnected ({_connections(ended)}), "
            f"and may connect again; derper deny keeps it out{rest}"
        )
        return Steered(sentence, ended)

    async def _change(self, change: Change) -> InForce:
        """Put a change in force. Raises SteeringFailed."""
        if await self._is_mesh(change.key):
            raise SteeringFailed(
                f"{node_public_text(change.key)} is a relay of the mesh, which no policy binds; "
                "change the mesh key to keep it out"
            )
        if self._list is None or not change.allowed:
            return await change_policy(self._to_keeper, change)
        try:
            await self._list.add(change.key, change.label)
        except ListNotWritten as error:
            found = await change_policy(self._to_keeper, change)
            return attrs.evolve(found, reason=str(error))
        return await change_policy(self._to_keeper, change, kept_in=self._list.path)

    def _sentence(self, what: str, change: Change, found: InForce) -> str:
        """Return what was done, and how long it holds."""
        if found.path is not None:
            return f"{what}, which stands in {found.path} now"
        if not found.reason:
            return what
        until = f"{what} until the relay stops: {found.reason}"
        if self._list is not None and change.allowed:
            return (
                f"{until}; to keep it, run this as a user who may write there, "
                f"with -verify-client-file {self._list.path}"
            )
        return until + _by_hand(change, found.reason)


async def is_mesh(state: RelayState, key: bytes) -> bool:
    """Return whether a key is connected to this process as a relay of the mesh."""
    await trio.lowlevel.checkpoint()
    return any(client.can_mesh for client in state.hub.clients(key))


async def end_clients(state: RelayState, key: bytes) -> Ended:
    """End the connections of a key to this process."""
    await trio.lowlevel.checkpoint()
    found = [client for client in state.hub.clients(key) if client.ending is None]
    for client in found:
        client.end(ClosedByOperator(_EVENTS["kick"]))
    return Ended(len(found))


def _change_of(command: Command) -> Change:
    """Return the change of the policy that a command makes. Raises SteeringFailed."""
    key, label, rate = command.key, command.label, command.rate
    if command.action == "limit":
        try:
            return Change(key, rate=rate)
        except ValueError as error:
            raise SteeringFailed(f"rate {rate!r:.100}: {error}") from None
    try:
        return Change(key, allowed=command.action == "allow", label=label)
    except ValueError as error:
        raise SteeringFailed(f"label {label!r:.100}: {error}") from None


def _done(command: Command, found: InForce) -> str:
    """Return the beginning of the sentence that says what was done."""
    key = node_public_text(command.key)
    if command.action == "deny":
        return f"{key} is denied ({_connections(found.ended)} ended)"
    if command.action == "allow":
        return f"{key} is allowed"
    if command.rate == UNLIMITED:
        return f"{key} has no limit"
    if command.rate is None:
        return f"{key} has no limit of its own"
    return f"{key} may send {command.rate}"


def _by_hand(change: Change, reason: str) -> str:
    """Return what to put into which file to keep a change, as a part of a sentence."""
    said = [f"{name} = {value}" for name, value in change.assignments.items() if value is not None]
    if not said:
        return ""
    entry = f'{" and ".join(said)} under [clients."{node_public_text(change.key)}"]'
    where = "into that file by hand"
    if reason == NO_FILE:
        where = "into a file, and start the relay with -policy and its path"
    return f"; to keep it, put {entry} {where}"


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
