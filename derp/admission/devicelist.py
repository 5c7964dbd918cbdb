"""The devices that an API lists, as a source: looked up in the last list, which is fetched anew.

    every POLL_EVERY                the list is fetched
    at once                         for a key that it does not have, as often as a bucket allows;
                                    all questions of that time wait for the same fetch
    while the API can't be asked    the last list counts, for as long as `keep` says

An API that wants no request for a time (Retry-After) gets none.
"""

import math
import time
from collections.abc import Callable
from typing import Final, Protocol

import trio

from derp.admission.model import ANSWER_TIMEOUT, Outcome, Question, Verdict
from derp.devices.kept import KeptList
from derp.devices.model import Devices
from derp.errors import DevicesFailed
from derp.net.backoff import Backoff
from derp.relay.tokenbucket import TokenBucket

POLL_EVERY: Final = 60.0
"""Seconds from the start of one fetch to that of the next, and between checks of expiries."""
FETCH_RATE: Final = 0.1
FETCH_BURST: Final = 3
"""Fetches a second for unknown keys, in the long run and in a burst. Strangers can cause them."""
FRESH: Final = 5.0
"""Seconds for which the last list decides on the keys that it no longer has. Their clients are
rechecked as soon as it is in force; each recheck would cause another fetch."""
FIRST_RETRY: Final = 5.0
"""Seconds until the first fetch after one that failed; each further one waits twice as long, up to
POLL_EVERY."""


class FetchDevices(Protocol):
    """A fetcher of a list."""

    async def fetch(self) -> Devices:
        """Return the devices that may use the relay. Raises DevicesFailed."""


class DeviceList:
    """The list in force, a source."""

    def __init__(
        self,
        name: str,
        fetcher: FetchDevices,
        keep: float,
        *,
        devices: Devices | None = None,
        store: KeptList | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Let each list count for `keep` seconds, at first `devices`; `wall` returns Unix time."""
        self.name = name
        self.fetcher = fetcher
        self.devices = devices
        self.store = store
        """Where the list is kept; None for nowhere."""
        self.trouble: DevicesFailed | None = None
        """The error of the last fetch; None if it succeeded."""
        self.gone: frozenset[bytes] | set[bytes] = frozenset()
        """The keys that the list has no longer, but the one before it had."""
        self.wall = wall
        self._keep = keep
        self._bucket = TokenBucket(FETCH_RATE, FETCH_BURST, -math.inf)
        self._backoff = Backoff(first=FIRST_RETRY, longest=POLL_EVERY)
        self._began = self._not_before = -math.inf
        # Set when a fetch is wanted before the next poll; and, for each fetch, when it has ended.
        self._wanted = trio.Event()
        self._ended = trio.Event()
        self._is_fetching = False

    @property
    def counts_until(self) -> float:
        """The Unix time until which the list counts."""
        return -math.inf if self.devices is None else self.devices.listed_at + self._keep

    def check(self, question: Question) -> Verdict:
        """Return the verdict of the last list; one that does not count is UNAVAILABLE."""
        now = self.wall()
        if self.devices is None or now >= self.counts_until:
            return self._unavailable()
        expires = self.devices.expiries.get(question.key)
        if expires is None:
            return self._refused(self._not_listed(now - self.devices.listed_at))
        if now >= expires:
            return self._refused("its node key has expired; log in again on that device")
        return Verdict(Outcome.ALLOWED, self.name)

    async def ask(self, question: Question) -> Verdict:
        """Return the verdict on a key; on an unknown one, by a list fetched after this call.

        If the bucket allows no fetch, or it takes longer than ANSWER_TIMEOUT, by the last list.
        """
        asked = trio.current_time() - (FRESH if question.key in self.gone else 0.0)
        with trio.move_on_after(ANSWER_TIMEOUT):
            while not self.check(question).admitted and self._began < asked:
                if not self._is_fetching and not self._want_fetch():
                    break
                await self._ended.wait()
        return self.check(question)

    async def next_fetch(self, until: float) -> bool:
        """Fetch the list when it is due or wanted, but wait no longer than `until`.

        Returns whether there was a fetch; then either `devices` or `trouble` is new. Only one task
        may call this.
        """
        due = self._not_before if self.trouble is not None else self._began + POLL_EVERY
        with trio.move_on_at(min(due, until)):
            await self._wanted.wait()
        now = trio.current_time()
        if now < due and not self._wanted.is_set():
            return False
        self._wanted, self._is_fetching = trio.Event(), True
        try:
            self.devices = await self.fetcher.fetch()
        except DevicesFailed as error:
            self.trouble = error
            wait = self._backoff.next() if error.retry_after is None else error.retry_after
            self._not_before = trio.current_time() + wait
            # Wanted while this one was under way: by now the API may want none.
            self._wanted = trio.Event()
        else:
            self.trouble = None
            self._backoff.reset()
        finally:
            self._is_fetching = False
            self._began = now
            self._ended.set()
            self._ended = trio.Event()
        return True

    def _want_fetch(self) -> bool:
        """Ask for a fetch at once; return whether there will be one."""
        now = trio.current_time()
        if not self._wanted.is_set():
            is_forbidden = self.trouble is not None and self.trouble.retry_after is not None
            if (is_forbidden and now < self._not_before) or not self._bucket.allow(now):
                return False
            self._wanted.set()
        return True

    def _not_listed(self, age: float) -> str:
        if self.trouble is None:
            return "not among the devices that it lists"
        return f"not among the devices that it listed {age / 60:.0f} minutes ago ({self.trouble})"

    def _refused(self, why: str) -> Verdict:
        return Verdict(Outcome.REFUSED, self.name, why)

    def _unavailable(self) -> Verdict:
        if self.trouble is None:
            return Verdict(Outcome.LATE, self.name, "its devices have not been listed yet")
        return Verdict(Outcome(self.trouble.outcome), self.name, str(self.trouble))
