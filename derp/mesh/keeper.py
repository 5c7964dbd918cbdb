"""A task for each entry of -mesh-with, and each other worker: dial, log in, serve; repeat.

Each change of state is one log line, with its cause and cure; a repeated failure is logged once.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, NoLink
from derp.mesh.link import Link, drop_tracebacks
from derp.mesh.login import log_in
from derp.net.backoff import Backoff
from derp.net.transport import Transport
from derp.session.state import RelayState
from derp.wire.keys import short_key

STABLE_AFTER: Final = 10.0
"""Seconds after which a link is stable: the backoff starts over at its end."""
MIN_REDIAL: Final = 0.2
MAX_REDIAL: Final = 5.0
"""Bounds, in seconds, on the wait that a relay announces with a restart: earlier versions announce
a longer wait, meant for many clients."""

RESTARTING: Final = "it restarts"
"""The reason for the end of a link whose relay has announced a restart."""

Connect = Callable[[], Awaitable[tuple[Transport, bytes]]]
"""Returns a transport upgraded to DERP, and the bytes already received. Raises NoLink."""

logger = log.get("mesh")


@attrs.define(eq=False)
class Keeper:
    """The task that keeps one link to another relay."""

    state: RelayState
    name: str
    """The other relay in logs: its entry of -mesh-with, or the worker."""
    connect: Connect
    backoff: Backoff = attrs.field(factory=Backoff)
    link: Link | None = attrs.field(init=False, default=None)
    """The link, while it is up."""
    trouble: str = attrs.field(init=False, default="")
    """Why the link is down, if that is known."""
    _reachable: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when the relay of the lost link logs in here."""

    async def run(self) -> None:
        """Keep the link until this relay stops, or finds its own key at the other relay."""
        while not self.state.stopping and (wait := await self._try()) is not None:
            await self._wait(wait)

    async def _try(self) -> float | None:
        """Make and serve one link; return the seconds to wait for the next, or None for no more.

        Separate from `run`, so that nothing of an ended link is kept during the wait.
        """
        try:
            found = await self._open()
            return None if found is None else await self._serve(*found)
        except NoLink as failure:
            self._log_failure(failure)
            drop_tracebacks(failure)
        except Exception as error:
            # A bug must end this link only, and must be logged.
            self.trouble = str(InternalFault(repr(error)))
            logger.exception("a mesh link was ended by a bug", relay=self.name)
        return self.backoff.next()

    async def _wait(self, seconds: float) -> None:
        """Wait `seconds`, or until the other relay logs in here.

        A login cuts short one wait per stable link: else two relays could wake each other for ever.
        """
        with trio.move_on_after(seconds):
            await self._reachable.wait()
            self._expect(None)

    def _expect(self, key: bytes | None) -> None:
        """Have `_reachable` set when the relay with this key logs in here; None for no relay."""
        self.state.reachable.forget(self._reachable)
        self._reachable = trio.Event() if key is None else self.state.reachable.expect(key)

    async def _open(self) -> tuple[Link, bytes] | None:
        """Dial and log in; return the link, and bytes received on it. Raises NoLink.

        Returns None if the other relay has this one's key.
        """
        transport, received = await self.connect()
        try:
            login = await self._log_in(transport, received)
        except BaseException:
            transport.abort()
            raise
        if login is None:
            self._log_own_key(transport)
            transport.close()
            return None
        key, received = login
        return self._make_link(transport, key), received

    async def _log_in(self, transport: Transport, received: bytes) -> tuple[bytes, bytes] | None:
        return await log_in(self.state, transport, received)

    def _make_link(self, transport: Transport, key: bytes) -> Link:
        return Link(self.state, transport, key, now=trio.current_time())

    async def _serve(self, link: Link, received: bytes) -> float:
        """Serve a link to its end; return the seconds to wait for the next.

        After a stable link, this is the wait that the other relay announced with a restart, if any.
        """
        began = trio.current_time()
        self._expect(None)
        self.link, self.trouble = link, ""
        self._log_link(link)
        reason = "closed"
        try:
            await link.serve(received)
        except ConnectionEnd as end:
            reason = f"{end.reason}: {end}"
            drop_tracebacks(end)
        finally:
            self.link = None
            link.transport.close()
            # Break a cycle: the send queue refers to the link.
            link.send_queue = None
        if link.restarts_in is not None:
            reason = RESTARTING
        seconds = trio.current_time() - began
        fields = {"clients": len(link.present), "seconds": round(seconds)}
        self._log_loss(reason, fields)
        link.present.clear()
        self.trouble = reason
        if seconds < STABLE_AFTER:
            return self.backoff.next()
        self.backoff.reset()
        self._expect(link.key)
        if link.restarts_in is None:
            return self.backoff.next()
        return max(MIN_REDIAL, min(link.restarts_in, MAX_REDIAL))

    def _log_link(self, link: Link) -> None:
        remote = str(link.transport.remote)
        logger.info("meshed", relay=self.name, key=short_key(link.key), address=remote)

    def _log_loss(self, reason: str, fields: dict[str, int]) -> None:
        logger.warning("mesh link lost", relay=self.name, reason=reason, **fields)

    def _log_own_key(self, transport: Transport) -> None:
        """Log that this relay has dialled itself, or another with a copy of its key."""
        remote = transport.remote
        if remote.host == transport.local.host:
            self.trouble = "it is this relay itself"
            message = "this relay itself is in -mesh-with"
            logger.info(message, relay=self.name, address=str(remote))
            return
        # This relay at another address, as behind NAT, or another machine with a copied key file.
        self.trouble = "it has this relay's own key"
        logger.warning(
            "the other relay has this relay's own key",
            relay=self.name,
            address=str(remote),
            cure="if it is another machine, give each its own -c key file, and restart both",
        )

    def _log_failure(self, failure: NoLink) -> None:
        reason = str(failure)
        if reason != self.trouble:
            self.trouble = reason
            logger.warning("can't mesh", relay=self.name, reason=reason, cure=failure.cure)
