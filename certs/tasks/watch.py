"""The task that serves a new pair in the files of a certificate without a restart."""

import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from certs.changes import PairChanges
from certs.errors import CertificateError
from certs.pair import Pair
from certs.tasks.clock import wall_clock, woken_within
from certs.tasks.presenter import Contexts, Presenter
from certs.tasks.report import logger
from certs.tasks.status import Status

CHECK_EVERY: Final = 5.0
"""Seconds between checks of the files; a new pair is served after one to two such periods."""

MakeContext = Callable[[Pair], ssl.SSLContext]
NamedContext = tuple[tuple[str, ...], ssl.SSLContext]
"""The names of a certificate, and the context that serves it."""


async def watch(
    changes: PairChanges,
    make_context: MakeContext,
    status: Status,
    wake: trio.MemoryReceiveChannel[None],
    to_listeners: trio.MemorySendChannel[NamedContext],
) -> None:
    """Check the files every CHECK_EVERY seconds, and at once when `wake` receives."""
    async with to_listeners:
        while True:
            at_once = await woken_within(CHECK_EVERY, wake)
            check = partial(_check, changes, make_context, status, at_once=at_once)
            try:
                found = await trio.to_thread.run_sync(check, abandon_on_cancel=True)
            except CertificateError as error:
                status.failed(str(error))
                continue
            except Exception as error:
                # A bug here must not end the relay, which has a certificate or may get one.
                logger.exception("checking a certificate's files was ended by a bug")
                status.failed(repr(error))
                continue
            if found is None:
                if at_once and status.pair is not None:
                    status.report.unchanged(status.certificate)
                continue
            pair, context = found
            await to_listeners.send((status.certificate.names, context))
            status.succeeded(pair)


def _check(
    changes: PairChanges, make_context: MakeContext, status: Status, *, at_once: bool
) -> tuple[Pair, ssl.SSLContext] | None:
    pair = changes.check(wall_clock(), status.pair, at_once=at_once)
    if pair is None:
        return None
    try:
        return pair, make_context(pair)
    except CertificateError:
        status.unservable_leaf = pair.chain_der[0]
        raise


async def install(
    contexts: Contexts, arriving: trio.MemoryReceiveChannel[NamedContext], presenter: Presenter
) -> None:
    """Serve each new certificate on the connections accepted from then on."""
    async for names, context in arriving:
        contexts.install(names, context)
        await presenter.renewed()
