"""One task for each entry of -mesh-with: dial, log in, serve the link, and do so again.

Each change of state is one line in the log, with its cause and what may help; the same failure
again and again is told once.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, NoLink
from derp.mesh.backoff import LONGEST, Backoff
from derp.mesh.link import Link
from derp.mesh.login import log_in
from derp.net.transport import Transport
from derp.server import Server
from derp.wire.keys import short

LASTED: Final = 10.0
"""Seconds after which a link has gone well, so that the next one is tried soon."""
SOON: Final = 0.2
"""The least seconds until a relay is dialled again that has said when it restarts."""

Connect = Callable[[], Awaitable[tuple[Transport, bytes]]]
"""Gives a transport on which DERP is spoken, and what has come on it already. Raises NoLink."""

logger = log.get("mesh")


@attrs.define(eq=False)
class Keeper:
    """Keeps one link."""

    server: Server
    name: str
    """What the operator calls the other relay."""
    connect: Connect
    backoff: Backoff = attrs.field(factory=Backoff)
    link: Link | None = attrs.field(init=False, default=None)
    """The link, while there is one."""
    trouble: str = attrs.field(init=False, default="")
    """Why there is none, if that has been found out."""

    async def run(self) -> None:
        """Keep the link until cancelled; return only where the other relay is this one itself."""
        while True:
            wait = None
            try:
                found = await self._find()
                if found is None:
                    logger.info("this relay itself is in -mesh-with", relay=self.name)
                    self.trouble = "it is this relay itself"
                    return
                wait = await self._serve(*found)
            except NoLink as failure:
                self._tell(failure)
            except Exception as error:
                # A mistake of ours must end this link only, and loudly.
                self.trouble = str(InternalFault(repr(error)))
                logger.exception("a mesh link was ended by a bug", relay=self.name)
            await trio.sleep(self.backoff.next() if wait is None else wait)

    async def _find(self) -> tuple[Link, bytes] | None:
        """Dial and log in; return the link, and what has come for it. Raises NoLink.

        None where the other relay is this one itself.
        """
        transport, received = await self.connect()
        try:
            login = await log_in(self.server, transport, received)
        except BaseException:
            transport.abort()
            raise
        if login is None:
            transport.close()
            return None
        key, received = login
        return Link(self.server, transport, key, now=trio.current_time()), received

    async def _serve(self, link: Link, received: bytes) -> float | None:
        """Serve a link to its end.

        Returns how long the other relay wants to be left alone; None where it has not said, or was
        there for so short a time that it may be in trouble.
        """
        began = trio.current_time()
        self.link, self.trouble = link, ""
        remote = str(link.transport.remote)
        logger.info("meshed", relay=self.name, key=short(link.key), address=remote)
        reason = "closed"
        try:
            await link.serve(received)
        except ConnectionEnd as end:
            reason = f"{end.reason}: {end}"
        finally:
            self.link = None
            link.transport.close()
        if link.restarts_in is not None:
            reason = "it restarts"
        seconds = trio.current_time() - began
        fields = {"clients": len(link.present), "seconds": round(seconds)}
        logger.warning("mesh link lost", relay=self.name, reason=reason, **fields)
        self.trouble = reason
        if seconds < LASTED:
            return None
        self.backoff.reset()
        return None if link.restarts_in is None else max(SOON, min(link.restarts_in, LONGEST))

    def _tell(self, failure: NoLink) -> None:
        reason = str(failure)
        if reason != self.trouble:
            self.trouble = reason
            logger.warning("can't mesh", relay=self.name, reason=reason, cure=failure.cure)
