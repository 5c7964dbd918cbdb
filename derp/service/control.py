"""The control socket: requests of operators on this machine, answered one by one.

Only root and the relay's own user may ask. What they send is bounded nevertheless: connections,
bytes, time, and how often the list of clients is made; no packet waits for more than a page of it.
"""

import math
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import attrs
import trio

from derp import log
from derp.admission.listedit import ListChange
from derp.admission.listkeeper import ListRequest, change_list
from derp.admission.refusals import Refusal
from derp.config.strconv import quoted
from derp.errors import ControlRefused, ListNotWritten, RPCFailed, SteeringFailed
from derp.net.address import Endpoint
from derp.net.descriptors import Descriptors
from derp.net.listener import accept_forever
from derp.net.peercred import peer_process
from derp.relay.tokenbucket import TokenBucket
from derp.service.clients import CLIENTS_PER_PAGE, ClientStatus, Listing
from derp.service.keybook import KeyBook, KeyStatus
from derp.service.keynames import key_named
from derp.service.steering import Steer, Steered
from derp.wire.control import (
    CLIENTS,
    FILL,
    KEYS,
    MAX_REQUEST,
    REFUSED,
    Command,
    Lines,
    Request,
    to_line,
    workers_text,
)
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public

MAX_CONNECTIONS: Final = 8
"""Connections at once; above it, the one that has waited longest for a request is closed."""
MAX_WHEN_FULL: Final = 2
"""Connections that are taken where clients have taken all descriptors but a reserve."""
REQUEST_TIMEOUT: Final = 60.0
"""Seconds for the next request, from the last answer on."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds in which each line of an answer has to be taken."""
REQUESTS: Final = 10.0
"""Requests a second on all connections together, in the long run."""
REQUESTS_BURST: Final = 20
CLIENTS_PER_REQUEST: Final = 500
"""Clients that are listed at the cost of one more request."""
WARN_EVERY: Final = 60.0
"""Seconds between two log lines about users who may not ask."""

KEYS_PER_REQUEST: Final = 5000
"""Keys that are listed at that cost."""

_RECEIVE_SIZE: Final = 4096

StatusT = TypeVar("StatusT")

logger = log.get("steer")


class RefusedKeys(NamedTuple):
    """The keys that were refused last."""

    keys: Sequence[Refusal]
    """The latest comes first."""
    silent: Sequence[int] = ()
    """The numbers of the workers that did not answer, whose refusals are missing."""


@attrs.frozen
class ControlBackend:
    """The relay behind the control socket."""

    clients: Callable[[], Awaitable[Listing]]
    """As in Pages."""
    book: KeyBook
    steer: Steer
    refused: Callable[[], Awaitable[RefusedKeys]]
    to_list: trio.MemorySendChannel[ListRequest] | None = None
    """To derp.admission.listkeeper; None without an allow-list."""


async def serve(
    listener: socket.socket, relay: ControlBackend, descriptors: Descriptors
) -> NoReturn:
    """Answer on `listener`, for ever, root and the user that this process runs as."""
    async with trio.open_nursery() as nursery:
        server = ControlServer(relay=relay, users={0, os.geteuid()}, nursery=nursery)
        await accept_forever(listener, server.accept, descriptors)
    raise AssertionError("it does not end")


@attrs.define(eq=False, kw_only=True)
class ControlServer:
    """The connections to the control socket."""

    relay: ControlBackend
    users: Collection[int]
    """The user IDs of those who may ask."""
    nursery: trio.Nursery
    """Owns the connection tasks."""
    _bucket: TokenBucket = attrs.field(
        init=False, factory=lambda: TokenBucket(REQUESTS, REQUESTS_BURST, trio.current_time())
    )
    _count: int = attrs.field(init=False, default=0)
    _waiting: dict[trio.CancelScope, None] = attrs.field(init=False, factory=dict)
    """Those that wait for a request, the longest first."""
    _warn_at: float = attrs.field(init=False, default=-math.inf)

    def accept(self, sock: socket.socket, _: Endpoint, *, full: bool = False) -> bool:
        """Start a new connection's task, or close it if there are too many: a `listener.Handle`."""
        if self._count >= MAX_CONNECTIONS:
            for scope in self._waiting:
                scope.cancel()
                break
        # The one that was cancelled is gone in a moment.
        if self._count >= (MAX_WHEN_FULL if full else 2 * MAX_CONNECTIONS):
            sock.close()
            return False
        self._count += 1
        self.nursery.start_soon(self._connection, sock)
        return True

    async def _connection(self, sock: socket.socket) -> None:
        try:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                who, refused = self._peer(sock)
                if refused:
                    await _send(stream, to_line({"error": refused}))
                else:
                    await self._answer_all(stream, who)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # it has gone, or takes nothing
        except Exception:
            # A bug must end this connection only.
            logger.exception("a connection to the control socket was ended by a bug")
        finally:
            self._count -= 1

    def _peer(self, sock: socket.socket) -> tuple[str, str]:
        """Return who asks, for the log, and why that one is refused."""
        process = peer_process(sock)
        if process is None:
            return "a user of this machine", ""  # the socket's mode has let it in
        pid, user = process
        who = f"uid {user}, pid {pid}"
        if user in self.users:
            return who, ""
        if (now := trio.current_time()) >= self._warn_at:
            self._warn_at = now + WARN_EVERY
            logger.warning("refused at the control socket", by=who)
        users = " and ".join(map(str, sorted(self.users)))
        return who, f"user {user} may not do this; run it as the user {users}"

    async def _answer_all(self, stream: trio.SocketStream, who: str) -> None:
        lines = Lines(MAX_REQUEST)
        while True:
            try:
                line = await self._next(stream, lines)
                if line is None:
                    return
                await trio.sleep(self._bucket.reserve(1, trio.current_time()))
                await self._answer(stream, Request.from_line(line), who)
            except (ControlRefused, SteeringFailed, RPCFailed) as error:
                await _send(stream, to_line({"error": str(error)}))
                if isinstance(error, ControlRefused):
                    # What follows may be the rest of the same mistake.
                    return

    async def _next(self, stream: trio.SocketStream, lines: Lines) -> bytes | None:
        """Return the next request; None at the end. Raises ControlRefused for none in time."""
        line = None
        with trio.move_on_after(REQUEST_TIMEOUT) as scope:
            self._waiting[scope] = None
            try:
                while (line := lines.next()) is None:
                    data = await stream.receive_some(_RECEIVE_SIZE)
                    if not data:
                        return None
                    lines.feed(data)
            finally:
                del self._waiting[scope]
        if line is None:
            raise ControlRefused(f"no request within {REQUEST_TIMEOUT:.0f} s, or too many others")
        return line

    async def _answer(self, stream: trio.SocketStream, request: Request, who: str) -> None:
        if request.do == CLIENTS:
            listing = await self._clients()
            labels, silent = self._with_label, listing.silent
            await _send_list(stream, request.do, listing.clients, labels, silent=[*silent])
        elif request.do == KEYS:
            statuses = [*self.relay.book.statuses()]
            self._bucket.reserve(len(statuses) / KEYS_PER_REQUEST, trio.current_time())
            await _send_list(stream, request.do, statuses, as_fields)
        elif request.do == REFUSED:
            keys, silent = await self.relay.refused()
            await _send_list(stream, request.do, keys, self._with_label, silent=[*silent])
        elif request.do == FILL:
            await _send(stream, await self._fill(request, who))
        else:
            found = await self._steer(request, who)
            await _send(stream, to_line({"done": found.sentence, "ended": found.ended}))

    def _with_label(self, status: ClientStatus | Refusal) -> dict[str, Any]:
        """Return a status as `as_fields` does, with the label that the key has in any file."""
        return as_fields(status) | {"label": self.relay.book.label_of(status.key)}

    async def _fill(self, request: Request, who: str) -> bytes:
        """Add keys to the allow-list; return the answer. Raises SteeringFailed."""
        if self.relay.to_list is None:
            raise SteeringFailed("the relay has no list of keys; start it with -verify-client-file")
        try:
            labels = {parse_node_public(key): label for key, label in request.keys.items()}
            add = {key: label or None for key, label in labels.items()}
            change = ListChange(add, keeps_labels=True)
        except (KeyFormatError, ValueError) as error:
            raise SteeringFailed(f"no key was added: {error}") from None
        try:
            written = await change_list(self.relay.to_list, change)
        except ListNotWritten as error:
            raise SteeringFailed(f"no key was added: {error}") from error
        logger.info("keys listed by an operator", by=who, added=len(written.added))
        added = [node_public_text(key) for key in written.added]
        what = "1 key is" if len(added) == 1 else f"{len(added)} keys are"
        return to_line({"done": f"{what} added", "added": added})

    async def _clients(self) -> Listing:
        listing = await self.relay.clients()
        cost = len(listing.clients) / CLIENTS_PER_REQUEST
        self._bucket.reserve(cost, trio.current_time())
        return listing

    async def _key(self, name: str) -> bytes:
        """Return the key that an operator names. Raises SteeringFailed and RPCFailed."""
        listing, labels = await self._clients(), self.relay.book.labels()
        key = key_named(name, {status.key for status in listing.clients}, labels)
        # A label is the policy's or the list's, and a whole key nobody else's.
        if listing.silent and name not in {node_public_text(key), labels.get(key)}:
            raise SteeringFailed(
                f"{quoted(name)}: {workers_text(listing.silent)} did not answer, which may have "
                f"another client of that name; want the whole key, or try again"
            )
        return key

    async def _steer(self, request: Request, who: str) -> Steered:
        key = await self._key(request.key)
        command = Command(request.do, key, request.rate, request.label)
        return await self.relay.steer(command, who)


def as_fields(status: ClientStatus | Refusal | KeyStatus) -> dict[str, Any]:
    """Return a status as JSON has it, with the key as text."""
    return attrs.asdict(status) | {"key": node_public_text(status.key)}


async def _send_list(
    stream: trio.SocketStream,
    do: str,
    statuses: Sequence[StatusT],
    fields_of: Callable[[StatusT], dict[str, Any]],
    **more: Any,
) -> None:
    """Send a list, a page of it in each turn of the event loop."""
    for start in range(0, len(statuses) or 1, CLIENTS_PER_PAGE):
        stop = start + CLIENTS_PER_PAGE
        rows = [fields_of(status) for status in statuses[start:stop]]
        await _send(stream, to_line({do: rows, "more": stop < len(statuses), **more}))


async def _send(stream: trio.SocketStream, line: bytes) -> None:
    with trio.fail_after(ANSWER_TIMEOUT):
        await stream.send_all(line)
