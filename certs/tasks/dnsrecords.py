"""The DNS records of an order, which are removed however it ends.

They are set and removed in the thread that orders. Where the task is cancelled, or waits no longer,
that thread is told to give up, and has STOP_TIMEOUT to remove them. What is left then is removed
by the next order, or at the next start.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from certs.acme.challenge import Present
from certs.dns01.options import DNSOptions
from certs.dns01.recordfile import RecordFile

STOP_TIMEOUT: Final = 5.0
"""Seconds that a stop of the relay waits for an order's records to be removed."""


@asynccontextmanager
async def presented(options: DNSOptions, certdir: Path) -> AsyncIterator[Present]:
    """Return what presents the challenges of one order, in the thread that orders."""
    records = await trio.to_thread.run_sync(make_records, options, certdir, abandon_on_cancel=True)
    try:
        yield records.present
    finally:
        records.stop.set()
        if not records.none_left.is_set():
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(records.none_left.wait, STOP_TIMEOUT)


async def remove_leftovers(options: DNSOptions, certdir: Path) -> None:
    """Remove the records of an order that was cut off."""
    await trio.to_thread.run_sync(_remove_leftovers, options, certdir, abandon_on_cancel=True)


def make_records(options: DNSOptions, certdir: Path) -> Any:
    """Return a Records. Blocks."""
    # Imported only in the thread that orders, as the library of orders is.
    from certs.dns01.present import Records  # noqa: PLC0415

    return Records(options, certdir)


def _remove_leftovers(options: DNSOptions, certdir: Path) -> None:
    if not RecordFile(certdir).path.exists():
        return
    from certs.dns01.present import remove_leftovers  # noqa: PLC0415 - as above

    remove_leftovers(options, certdir)
