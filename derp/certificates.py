"""The certificate task: a new certificate is served without a restart.

    files, SIGHUP ► look, in a thread ► new context ──(memory channel)──► listeners

Established connections keep the certificate that they began with. What can't be served is logged
and counted, and the one in force stays.
"""

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import trio

from certs.errors import CertificateError
from certs.pair import Pair
from certs.reload import WatchedFiles
from derp import log
from derp.net.tls import TLSEngine

LOOK_EVERY: Final = 5.0
"""Seconds between looks at the files; a change is served after one to two of them."""

logger = log.get("certificates")

MakeContext = Callable[[Pair], ssl.SSLContext]


@attrs.define(eq=False)
class Status:
    """What the pages tell of the certificate in force. Times are Unix times in seconds."""

    pair: Pair
    replaced: int = 0
    """How often it was replaced while the server ran, and when last."""
    replaced_at: float | None = None
    failures: int = 0
    """How often another one could not be served, when last, and why."""
    failed_at: float | None = None
    failure: str = ""


async def watch(
    source: WatchedFiles,
    make_context: MakeContext,
    status: Status,
    wake: trio.MemoryReceiveChannel[None],
    to_listeners: trio.MemorySendChannel[ssl.SSLContext],
) -> None:
    """Look for a new certificate from time to time, and at once when told by `wake`."""
    async with to_listeners:
        while True:
            at_once = False
            with trio.move_on_after(LOOK_EVERY):
                await wake.receive()
                at_once = True
            look = partial(_look, source, make_context, status.pair, at_once=at_once)
            try:
                found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            except CertificateError as error:
                status.failures += 1
                status.failed_at = time.time()
                status.failure = str(error)
                logger.error("the old certificate stays in force", reason=str(error))  # noqa: TRY400
                continue
            if found is None:
                if at_once:
                    logger.info("the certificate has not changed")
                continue
            pair, context = found
            await to_listeners.send(context)
            status.pair = pair
            status.replaced += 1
            status.replaced_at = time.time()
            for warning in pair.warnings:
                logger.warning(warning)
            names = " ".join(pair.names)
            expires = f"{pair.not_after:%Y-%m-%dT%H:%MZ}"
            logger.info("new certificate", names=names, expires=expires, pin=pair.pin)


def _look(
    source: WatchedFiles, make_context: MakeContext, current: Pair, *, at_once: bool
) -> tuple[Pair, ssl.SSLContext] | None:
    pair = source.look(datetime.now(UTC), current, at_once=at_once)
    return None if pair is None else (pair, make_context(pair))


async def install(engine: TLSEngine, contexts: trio.MemoryReceiveChannel[ssl.SSLContext]) -> None:
    """Serve each new context to the connections accepted from then on."""
    async for context in contexts:
        engine.context = context
