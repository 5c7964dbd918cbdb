"""One task for each entry of -mesh-with, or other worker: dial, log in, serve the link; again.

Each change of state is one line in the log, with its cause and what may help; the same failure
again and again is told once.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, NoLink
from derp.mesh.handshake import log_in
from derp.mesh.link import Link, forget_frames
from derp.net.backoff import Backoff
from derp.net.transport import Transport
from derp.session.state import RelayState
from derp.wire.keys import short_key

LASTED: Final = 10.0
"""Seconds after which a link has gone well, so that the next one is tried soon."""
SOON: Final = 0.2
"""The least seconds until a relay is dialled again that has said when it restarts."""
LATE: Final = 5.0
"""The most seconds of that: earlier versions say a moment that suits many clients."""

RESTARTS: Final = "it restarts"
"""The reason where the other relay has said so."""

Connect = Callable[[], Awaitable[tuple[Transport, bytes]]]
"""Gives a transport on which DERP is spoken, and what has come on it already. Raises NoLink."""

logger = log.get("mesh")


@attrs.define(eq=False)
class Keeper:
    """Keeps one link to another relay."""

    state: RelayState
    name: str
    """What the operator calls the other relay."""
    connect: Connect
    backoff: Backoff = attrs.field(factory=Backoff)
    link: Link | None = attrs.field(init=False, default=None)
    """The link, while there is one."""
    trouble: str = attrs.field(init=False, default="")
    """Why there is none, if that has been found out."""
    _back: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when the relay that is lost has logged in here."""

    async def run(self) -> None:
        """Keep the link until cancelled, or until this relay stops.

        Returns at once where what is dialled has the key of this relay.
        """
        while not self.state.stopping:
            wait = await self._try()
            if wait is None:
                break
            await self._rest(wait)

    async def _try(self) -> float | None:
        """Make a link and serve it to its end; return how long to wait then, None for ever.

        Apart from `run`, so that nothing of an ended link is kept for that time.
        """
        try:
            found = await self._find()
            return None if found is None else await self._serve(*found)
        except NoLink as failure:
            self._tell(failure)
            forget_frames(failure)
        except Exception as error:
            # A mistake of ours must end this link only, and loudly.
            self.trouble = str(InternalFault(repr(error)))
            logger.exception("a mesh link was ended by a bug", relay=self.name)
        return self.backoff.next()

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the relay that is lost logs in here.

        That cuts a wait short once for each link that has lasted: two relays with trouble must not
        wake each other for ever.
        """
        with trio.move_on_after(seconds):
            await self._back.wait()
            self._await(None)

    def _await(self, key: bytes | None) -> None:
        """Have `_back` set when the relay with that key logs in here, from now on."""
        self.state.awaited.pop(self._back, None)
        self._back = trio.Event()
        if key is not None:
            self.state.awaited[self._back] = key

    async def _find(self) -> tuple[Link, bytes] | None:
        """Dial and log in; return the link, and what has come for it. Raises NoLink.

        None where the other relay has this one's key.
        """
        transport, received = await self.connect()
        try:
            login = await self._log_in(transport, received)
        except BaseException:
            transport.abort()
            raise
        if login is None:
            self._tell_of_own_key(transport)
            transport.close()
            return None
        key, received = login
        return self._make_link(transport, key), received

    async def _log_in(self, transport: Transport, received: bytes) -> tuple[bytes, bytes] | None:
        return await log_in(self.state, transport, received)

    def _make_link(self, transport: Transport, key: bytes) -> Link:
        return Link(self.state, transport, key, now=trio.current_time())

    async def _serve(self, link: Link, received: bytes) -> float:
        """Serve a link to its end.

        Returns how long to wait then: as the other relay has said, unless it was there for so
        short a time that it may be in trouble.
        """
        began = trio.current_time()
        self._await(None)
        self.link, self.trouble = link, ""
        self._tell_of_link(link)
        reason = "closed"
        try:
            await link.serve(received)
        except ConnectionEnd as end:
            reason = f"{end.reason}: {end}"
            forget_frames(end)
        finally:
            self.link = None
            link.transport.close()
            # It holds the link, too: a cycle.
            link.send_queue = None
        if link.restarts_in is not None:
            reason = RESTARTS
        seconds = trio.current_time() - began
        fields = {"clients": len(link.present), "seconds": round(seconds)}
        self._tell_of_loss(reason, fields)
        link.present.clear()
        self.trouble = reason
        if seconds < LASTED:
            return self.backoff.next()
        self.backoff.reset()
        self._await(link.key)
        if link.restarts_in is None:
            return self.backoff.next()
        return max(SOON, min(link.restarts_in, LATE))

    def _tell_of_link(self, link: Link) -> None:
        remote = str(link.transport.remote)
        logger.info("meshed", relay=self.name, key=short_key(link.key), address=remote)

    def _tell_of_loss(self, reason: str, fields: dict[str, int]) -> None:
        logger.warning("mesh link lost", relay=self.name, reason=reason, **fields)

    def _tell_of_own_key(self, transport: Transport) -> None:
        """Say that what was dialled is this relay, or has a copy of its key."""
        remote = transport.remote
        if remote.host == transport.local.host:
            self.trouble = "it is this relay itself"
            message = "this relay itself is in -mesh-with"
            logger.info(message, relay=self.name, address=str(remote))
            return
        # Itself by another address, as behind NAT, or another machine with a copied key file.
        self.trouble = "it has this relay's own key"
        logger.warning(
            "what has this relay's own key is taken for itself",
            relay=self.name,
            address=str(remote),
            cure="if it is another machine, give each a -c key file of its own, and restart both",
        )

    def _tell(self, failure: NoLink) -> None:
        reason = str(failure)
        if reason != self.trouble:
            self.trouble = reason
            logger.warning("can't mesh", relay=self.name, reason=reason, cure=failure.cure)
