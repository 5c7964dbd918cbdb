"""The watch over one certificate's files: what is new there is served without a restart."""

import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from certs.errors import CertificateError
from certs.pair import Pair
from certs.reload import WatchedFiles
from derp import log
from derp.certificates.clock import wall_clock
from derp.certificates.contexts import Contexts
from derp.certificates.listeners import Listeners
from derp.certificates.served import Status

LOOK_EVERY: Final = 5.0
"""Seconds between looks at the files; a change is served after one to two of them."""

logger = log.get("certificates")

MakeContext = Callable[[Pair], ssl.SSLContext]
Named = tuple[tuple[str, ...], ssl.SSLContext]
"""The names of a certificate, and the context that serves it."""


async def watch(
    files: WatchedFiles,
    make_context: MakeContext,
    status: Status,
    wake: trio.MemoryReceiveChannel[None],
    to_listeners: trio.MemorySendChannel[Named],
) -> None:
    """Look for a new certificate from time to time, and at once when told by `wake`."""
    async with to_listeners:
        while True:
            at_once = False
            with trio.move_on_after(LOOK_EVERY):
                await wake.receive()
                at_once = True
            look = partial(_look, files, make_context, status, at_once=at_once)
            try:
                found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            except CertificateError as error:
                status.failed(str(error))
                continue
            except Exception as error:
                # A mistake of ours must not end the relay, which has a certificate or may get one.
                logger.exception("looking at a certificate was ended by a bug")
                status.failed(repr(error))
                continue
            if found is None:
                if at_once:
                    status.unchanged()
                continue
            pair, context = found
            await to_listeners.send((status.certificate.names, context))
            status.succeeded(pair)


def _look(
    files: WatchedFiles, make_context: MakeContext, status: Status, *, at_once: bool
) -> tuple[Pair, ssl.SSLContext] | None:
    pair = files.look(wall_clock(), status.pair, at_once=at_once)
    if pair is None:
        return None
    try:
        return pair, make_context(pair)
    except CertificateError:
        status.unfit = pair.chain_der[0]
        raise


async def install(
    contexts: Contexts, arriving: trio.MemoryReceiveChannel[Named], listeners: Listeners
) -> None:
    """Serve each new certificate to the connections accepted from then on, and tell of it."""
    async for names, context in arriving:
        contexts.install(names, context)
        await listeners.renewed()
