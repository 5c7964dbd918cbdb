"""The task that obtains and renews one certificate by ACME.

`certs.acme.schedule` computes when an order is due, from the authority's suggestion (RFC 9773) or
the certificate's lifetime. That time is compared with the wall clock at least every CHECK_EVERY
seconds, since the clock may be set. Waits after failures go by Trio's monotonic clock. SIGHUP ends
every wait between orders but that of a Retry-After.
"""

import contextlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NoReturn
from urllib.parse import urlsplit

import trio

from certs import apart
from certs.acme.ari import ASK_AGAIN, RenewalInfo
from certs.acme.challenge import DNS01, AnyChallenge, Kind, Present
from certs.acme.request import OrderRequest
from certs.acme.schedule import bounded_retry_after, renew_at, wait_after
from certs.acme.store import issued_by
from certs.errors import CertificateError, Failure, IssueError
from certs.pair import Pair
from certs.tasks import dnsrecords
from certs.tasks.clock import WallClock, wall_clock, woken_within
from certs.tasks.plan import ACMEOptions
from certs.tasks.presenter import Presenter
from certs.tasks.report import logger
from certs.tasks.status import Status

CHECK_EVERY: Final = 60.0
"""Most seconds between two comparisons with the wall clock."""
ORDER_TIMEOUT: Final = 240.0
"""Seconds for an order, from its first request to the certificate."""
IN_FORCE_TIMEOUT: Final = 60.0
"""Seconds from a new certificate in the files until it must be served."""
ASK_AGAIN_AFTER_FAILURE: Final = 3600.0
"""Seconds until the next request for renewal information after one that failed."""
BETWEEN_ORDERS: Final = 3600.0
"""Least seconds from a certificate to the next order; a tenth of its lifetime, if that is less."""


class Renewal:
    """The task that renews one certificate."""

    def __init__(
        self,
        acme: ACMEOptions,
        status: Status,
        presenter: Presenter,
        check_files: trio.MemorySendChannel[None],
        now: WallClock = wall_clock,
    ) -> None:
        certificate = status.certificate
        certdir = certificate.files.certificate.parent
        self._request = OrderRequest(certdir, certificate.names, acme.authority, acme.profile)
        self._authority = urlsplit(acme.authority.directory).hostname
        self._challenges = deque(acme.challenges)
        self._dns = acme.dns
        self._status = status
        self._presenter = presenter
        self._check_files = check_files
        self._now = now
        self._failures = 0
        self._next_try = 0.0
        self._retry_not_before = 0.0
        self._other_is_ordering = False
        # The pair in force, whether another authority issued it, when to ask for its renewal
        # information, the last such information, and where in its window to renew, in [0, 1).
        self._pair: Pair | None = None
        self._other_authority = False
        self._ask_at = 0.0
        self._suggested: RenewalInfo | None = None
        self._position = random.random()  # noqa: S311 -- only spreads load

    async def run(self, wake: trio.MemoryReceiveChannel[None]) -> NoReturn:
        """Order whenever a certificate is due; `wake` ends a wait."""
        # The authority is compared only at the start, so that two relays with one -certdir and
        # different authorities don't replace each other's certificate for ever.
        self._pair = self._status.pair
        if self._dns is not None:
            await dnsrecords.remove_leftovers(self._dns, self._request.certdir)
        if self._pair is not None:
            self._other_authority = await trio.to_thread.run_sync(
                self._is_by_other_authority, abandon_on_cancel=True
            )
        while True:
            await self._refresh_pair()
            if self._status.pair is not self._pair:
                # A new pair came into force while the authority was asked about the old one.
                continue
            now = trio.current_time()
            next_try = max(self._next_try, self._retry_not_before)
            if not self._is_due():
                until = self._ask_at
            elif now < next_try:
                until = next_try
            else:
                await self._try()
                continue
            if await woken_within(min(CHECK_EVERY, max(until - now, 0.0)), wake):
                # `_retry_not_before`, from the authority's Retry-After, stays.
                self._ask_at = self._next_try = trio.current_time()

    def _is_due(self) -> bool:
        pair = self._pair
        if pair is None or self._other_authority:
            return True
        if not all(map(pair.covers, self._request.names)):
            # A name was added to -hostname.
            return True
        window = None if self._suggested is None else self._suggested.window
        return self._now() >= renew_at(pair.not_before, pair.not_after, window, self._position)

    async def _refresh_pair(self) -> None:
        """Note a new pair in force, and ask for its renewal information when that is due."""
        now = trio.current_time()
        pair = self._status.pair
        if pair is not self._pair:
            # A new pair, from this task or from another process.
            self._pair = pair
            self._other_authority = False
            self._suggested = None
            self._position = random.random()  # noqa: S311 -- only spreads load
            self._failures = 0
            self._ask_at = now
        if pair is None or self._other_authority or now < self._ask_at:
            return
        ask = partial(apart.renewal_info, self._request, pair, self._now())
        again = ASK_AGAIN_AFTER_FAILURE
        try:
            self._suggested = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        except IssueError as error:
            names = self._status.certificate.names_text
            logger.info("can't ask when to renew", names=names, reason=str(error))
        except Exception:
            # A bug here must not end the relay; see _try.
            logger.exception("asking when to renew was ended by a bug")
        else:
            again = ASK_AGAIN if self._suggested is None else self._suggested.ask_again_in
        self._ask_at = now + again

    def _is_by_other_authority(self) -> bool:
        """Return whether the file names another authority than the configured one. Blocks."""
        directory = issued_by(self._status.certificate.files.certificate)
        return directory not in {None, self._request.authority.directory}

    async def _try(self) -> None:
        """Order once, and wait until the new certificate is served."""
        names, challenge = self._status.certificate.names_text, self._challenges[0]
        if not self._other_is_ordering:
            logger.info(
                "ordering a certificate",
                names=names,
                authority=self._authority,
                challenge=challenge,
            )
        before, changed = self._pair, self._status.changed
        try:
            ordered = await self._order(challenge, before)
        except CertificateError as error:
            self._failed(error if isinstance(error, IssueError) else IssueError(str(error)))
            return
        except Exception as error:
            # A bug here must not end the relay, which has a certificate or may get one.
            logger.exception("ordering a certificate was ended by a bug", names=names)
            self._failed(IssueError(repr(error), Failure.SPENT))
            return
        self._other_is_ordering = False
        with contextlib.suppress(trio.WouldBlock):
            self._check_files.send_nowait(None)
        with trio.move_on_after(IN_FORCE_TIMEOUT):
            await changed.wait()
        pair = self._status.pair
        if pair is None or pair is before:
            message = "the new certificate can't be served"
            self._failed(IssueError(message, Failure.SPENT if ordered else Failure.REFUSED))
        elif ordered:
            life = (pair.not_after - pair.not_before) / timedelta(seconds=1)
            self._next_try = trio.current_time() + min(BETWEEN_ORDERS, life / 10)

    async def _order(self, challenge: Kind, before: Pair | None) -> bool:
        """Order a certificate; return False if another process was faster."""
        replacing = self._status.unservable_leaf if before is None else before.chain_der[0]
        now, timeout = self._now(), ORDER_TIMEOUT
        order = partial(obtain, self._request, challenge, now=now, replacing=replacing)
        async with contextlib.AsyncExitStack() as stack:
            present: Present = partial(_present, self._presenter)
            if challenge == "dns-01" and self._dns is not None:
                timeout += self._dns.longest
                records = dnsrecords.presented(self._dns, self._request.certdir)
                present = await stack.enter_async_context(records)
            with trio.move_on_after(timeout + 60.0):
                return await trio.to_thread.run_sync(
                    partial(order, present=present, timeout=timeout), abandon_on_cancel=True
                )
        raise IssueError(f"{self._authority}: the order did not end in time")

    def _failed(self, error: IssueError) -> None:
        now = trio.current_time()
        chance = random.random()  # noqa: S311 -- only spreads load
        wait = wait_after(error.failure, self._failures, chance)
        if error.failure is Failure.BUSY:
            self._next_try = now + wait
            if not self._other_is_ordering:
                logger.info("waiting for another order", reason=str(error))
            self._other_is_ordering = True
            return
        self._other_is_ordering = False
        if error.failure is Failure.VALIDATION and len(self._challenges) > 1:
            self._challenges.rotate(-1)
            if not self._failures:
                # The authority may reach this server by the other challenge.
                wait = 0.0
        self._failures += 1
        self._next_try = now + wait
        if error.retry_after is not None:
            self._retry_not_before = now + bounded_retry_after(error.retry_after)
        self._status.failed(str(error), next_try=max(self._next_try, self._retry_not_before) - now)


def obtain(
    request: OrderRequest,
    kind: Kind,
    present: Present,
    now: datetime,
    *,
    timeout: float,
    replacing: bytes | None = None,
) -> bool:
    """Call certs.acme.order.obtain. Blocks."""
    # Imported only in the thread that orders: the library is large, and orders are rare.
    from certs.acme.order import obtain  # noqa: PLC0415

    return obtain(request, kind, present, now, timeout=timeout, replacing=replacing)


@contextlib.contextmanager
def _present(presenter: Presenter, challenges: Sequence[AnyChallenge]) -> Iterator[None]:
    """Answer `challenges` while the context lasts. Runs in the thread that orders."""
    with contextlib.ExitStack() as stack:
        for challenge in challenges:
            if isinstance(challenge, DNS01):
                raise TypeError("no listener answers a DNS challenge")
            stack.callback(trio.from_thread.run, presenter.hide, challenge)
            trio.from_thread.run(presenter.show, challenge)
        yield
