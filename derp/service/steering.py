"""What an operator may do to the clients of a running relay: disconnect, deny, allow, limit.

Denying, allowing and limiting are changes of the policy in force, which are written into the file
of -policy where there is one.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import attrs
import trio

from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.listedit import ListChange
from derp.admission.listkeeper import ListWishes, change_list
from derp.admission.policykeeper import NO_FILE, InForce, Wishes, change_policy
from derp.errors import ClosedByOperator, ListNotWritten, SteeringFailed
from derp.policy import document
from derp.policy.amounts import UNLIMITED
from derp.policy.change import Change
from derp.session.state import RelayState
from derp.wire.keys import node_public_text, short_key

logger = log.get("steer")


class Ended(NamedTuple):
    """Connections that were ended."""

    connections: int
    silent: int = 0
    """Workers that did not answer, which may have ended some, too."""


EndClients = Callable[[bytes], Awaitable[Ended]]
"""Ends all connections of a key."""
IsMesh = Callable[[bytes], Awaitable[bool]]
"""Returns whether a key is connected as a relay of the mesh."""


@attrs.frozen
class Steered:
    """What was done."""

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

    async def deny(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """Refuse a key from now on, whatever the other sources say, and end its connections.

        With a label the key gets that, too; None keeps what there is.
        """

    async def allow(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """Admit a key from now on, whatever the other sources say; `label` as in `deny`."""

    async def limit(self, key: bytes, rate: str | None, by: str) -> Steered:
        """Limit what a key sends: a rate as in the policy file, or None for none of its own."""


@attrs.frozen
class KeyList:
    """The allow-list of a relay without a policy file."""

    allowlist: AllowList
    to_keeper: trio.MemorySendChannel[ListWishes]
    """To derp.admission.listkeeper."""


def has_list(checker: Checker | None) -> bool:
    """Return whether a relay has an allow-list."""
    return checker is not None and checker.sources.allowlist is not None


def list_to_steer(
    checker: Checker | None, to_keeper: trio.MemorySendChannel[ListWishes]
) -> KeyList | None:
    """Return the list to which allowed keys are added; None where they go into a policy file."""
    if checker is None or checker.sources.allowlist is None or checker.sources.policy is not None:
        return None
    return KeyList(checker.sources.allowlist, to_keeper)


class RelaySteering:
    """The Steering of a relay, in the process that keeps its policy."""

    def __init__(
        self,
        end_clients: EndClients,
        is_mesh: IsMesh,
        to_keeper: trio.MemorySendChannel[Wishes],
        key_list: KeyList | None = None,
    ) -> None:
        """Send changes of the policy to its keeper (derp.admission.policykeeper).

        `key_list` is the list that has the keys which are allowed; None for the policy.
        """
        self._end_clients = end_clients
        self._is_mesh = is_mesh
        self._to_keeper = to_keeper
        self._list = key_list

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

    async def deny(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """See Steering."""
        if label is None and self._list is not None:
            # Its line in the list goes.
            label = _usable(self._list.allowlist.keys.get(key, ""))
        change = _change(key, allowed=False, label=label)
        found = await self._change(change)
        _log("denied by an operator", key, by, found, connections=found.ended)
        what = f"{node_public_text(key)} is denied ({_connections(found.ended)} ended)"
        rest = "" if self._list is None else await _unlist(self._list, key)
        return Steered(_sentence(what, change, found) + rest, found.ended)

    async def allow(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """See Steering."""
        change = _change(key, allowed=True, label=label)
        await self._check_mesh(key)
        if self._list is None:
            found = await self._change(change)
        else:
            found = await self._allow_in_list(self._list, change)
        _log("allowed by an operator", key, by, found)
        what = f"{node_public_text(key)} is allowed"
        if self._list is not None and found.path is None:
            return Steered(
                f"{what} until the relay stops: {found.reason}; to keep it, run this as a user who "
                f"may write there, with -verify-client-file {self._list.allowlist.path}"
            )
        return Steered(_sentence(what, change, found), found.ended)

    async def _allow_in_list(self, key_list: KeyList, change: Change) -> InForce:
        """Add a key to the list; where that is not possible, allow it until the relay stops."""
        try:
            added = ListChange({change.key: change.label})
        except ValueError as error:
            raise SteeringFailed(f"label {change.label!r:.100}: {error}") from None
        try:
            await change_list(key_list.to_keeper, added)
        except ListNotWritten as error:
            found = await self._change(change)
            return attrs.evolve(found, reason=str(error))
        path = key_list.allowlist.path
        return await change_policy(self._to_keeper, change, kept_in=path)

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
        await self._check_mesh(change.key)
        return await change_policy(self._to_keeper, change)

    async def _check_mesh(self, key: bytes) -> None:
        """Raise SteeringFailed for a relay of the mesh."""
        if await self._is_mesh(key):
            raise SteeringFailed(
                f"{node_public_text(key)} is a relay of the mesh, which no policy binds; "
                "change the mesh key to keep it out"
            )


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


def _change(key: bytes, *, allowed: bool, label: str | None) -> Change:
    """Return a change of the policy. Raises SteeringFailed for a wrong label."""
    try:
        return Change(key, allowed=allowed, label=label)
    except ValueError as error:
        raise SteeringFailed(f"label {label!r:.100}: {error}") from None


def _usable(label: str) -> str | None:
    """Return a label of the list if the policy takes it, too."""
    try:
        return document.label(label)
    except ValueError:
        return None


async def _unlist(key_list: KeyList, key: bytes) -> str:
    """Take a key that is denied out of the list; return what came of it, as a part of a sentence.

    Else it would be admitted again once the relay stops.
    """
    path = key_list.allowlist.path
    try:
        written = await change_list(key_list.to_keeper, ListChange(remove=[key]))
    except ListNotWritten as error:
        return f"; it may still be in {path}: {error}"
    return f"; it is no longer in {path}" if written.removed else ""


def _sentence(what: str, change: Change, found: InForce) -> str:
    if found.path is not None:
        return f"{what}, which stands in {found.path} now"
    if not found.reason:
        return what
    said = [f"{name} = {value}" for name, value in change.said.items() if value is not None]
    if not said:
        return f"{what} until the relay stops: {found.reason}"
    entry = f'{" and ".join(said)} under [clients."{node_public_text(change.key)}"]'
    where = "into that file by hand"
    if found.reason == NO_FILE:
        where = "into a file, and start the relay with -policy and its path"
    return f"{what} until the relay stops: {found.reason}; to keep it, put {entry} {where}"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def workers_text(count: int) -> str:
    """Return "1 worker", "2 workers"."""
    return "1 worker" if count == 1 else f"{count} workers"


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
