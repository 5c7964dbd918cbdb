"""The task that warns daily of a self-signed certificate that expires soon, and then replaces it.

It replaces none earlier, since a new one locks clients out until the DERP map has its pin.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final, NoReturn

import trio

from certs import apart
from certs.errors import CertificateError
from certs.generated import is_generated, is_outside_validity
from certs.hostname import IPAddress
from certs.pair import Pair
from certs.tasks.clock import WallClock, wall_clock
from certs.tasks.report import logger
from certs.tasks.status import Status

CHECK_EVERY: Final = 60.0
"""Seconds between comparisons with the time of day, as the clock may be set at any time."""
WARN_WITHIN: Final = timedelta(days=30)
WARN_EVERY: Final = timedelta(days=1)
RETRY_EVERY: Final = 3600.0
"""Seconds between attempts to write the files."""


async def replace_when_expired(
    address: IPAddress,
    status: Status,
    check_files: trio.MemorySendChannel[None],
    announce: Callable[[Pair], None],
    now: WallClock = wall_clock,
) -> NoReturn:
    """Warn before the pair expires, replace it once it has, and `announce` the new one."""
    warned = None
    while True:
        pair = status.pair
        wait = CHECK_EVERY
        if pair is not None and is_generated(pair, address):
            left = pair.not_after - now()
            if is_outside_validity(pair, address, now()):
                if not await _replace(address, pair, status, check_files, announce, now):
                    wait = RETRY_EVERY
            elif left < WARN_WITHIN and (warned is None or now() - warned >= WARN_EVERY):
                warned = now()
                logger.warning(
                    "the self-signed certificate expires soon; it is then replaced, and clients "
                    "are refused until the DERP map has the new CertName",
                    expires=f"{pair.not_after:%Y-%m-%dT%H:%MZ}",
                    days=left.days,
                )
        await trio.sleep(wait)


async def _replace(
    address: IPAddress,
    old: Pair,
    status: Status,
    check_files: trio.MemorySendChannel[None],
    announce: Callable[[Pair], None],
    now: WallClock,
) -> bool:
    """Replace the pair in the files; wait for the new one, and return whether it is served."""
    changed = status.changed
    replace = partial(apart.replace_invalid, status.certificate.files, address, old, now())
    try:
        notice = await trio.to_thread.run_sync(replace, abandon_on_cancel=True)
    except CertificateError as error:
        status.failed(str(error), next_try=RETRY_EVERY)
        return False
    if notice is None:
        return False
    await check_files.send(None)
    with trio.move_on_after(RETRY_EVERY):
        await changed.wait()
    if status.pair is None or status.pair is old:
        return False
    logger.error(notice)
    announce(status.pair)
    return True
