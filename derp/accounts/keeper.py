"""The keeper of accounts: collects counts, and has them written every few seconds.

What can't be written stays in memory, within a bound, and is written once that is possible again.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol

import attrs
import trio

from derp import log
from derp.accounts.counts import Counts, Period, month_of, next_period, until_midnight
from derp.accounts.unwritten import MAX_ROWS, Unwritten
from derp.errors import AccountsFailed

FLUSH_EVERY: Final = 10.0
"""Seconds between two writes: what a crash loses at most."""
FLUSH_WAIT: Final = 2.0
"""Seconds that a flush waits for its write; after that, the write goes on by itself."""
LATE: Final = 60.0
"""Seconds after which a write that has not ended is logged."""
STOP_TIMEOUT: Final = 2.0
"""Seconds for the last write."""
MAX_KNOWN: Final = 2 * MAX_ROWS
"""Most keys whose usage is remembered."""
KEYS_PER_TURN: Final = 1000
"""Keys whose usage is noted before other tasks run."""

_SHORTEST_WAIT: Final = 0.01

Collect = Callable[[], Awaitable[None]]
"""Adds the counts of all connected clients."""
UsedBytes = Mapping[bytes, tuple[int, int]]
"""Bytes of keys in the current day, and in the current month."""

logger = log.get("accounts")


class Sink(Protocol):
    """The destination of counts: the file, from a worker the supervisor, or nowhere."""

    name: str
    """For the log."""
    is_shared: bool
    """Whether others add counts of the same keys, so that each write asks for their usage."""

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> UsedBytes:
        """Add all counts, and return the usage of `wanted` keys. Raises AccountsFailed.

        Then none of the counts that are still in `unwritten` were added.
        """

    async def close(self) -> None:
        """Release the file."""


@attrs.define(eq=False)
class Accounts:
    """The counts of one process's clients, and what all keys have used."""

    _sink: Sink
    _every: float = FLUSH_EVERY
    _wall: Callable[[], float] = time.time
    """Returns Unix time, in seconds."""
    _unwritten: Unwritten = attrs.field(init=False)
    _writing: Unwritten | None = attrs.field(init=False, default=None)
    _known: dict[bytes, tuple[int, int]] = attrs.field(init=False, factory=dict)
    """The bytes in the sink of the keys seen since the start, those written last at the end."""
    _known_day: str = attrs.field(init=False)
    _written: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when the current write, or the last one, has ended."""
    _is_written: bool = attrs.field(init=False, default=False)
    """Whether the last write succeeded; the first one, of nothing, examines the file."""
    _trouble: str = attrs.field(init=False, default="")
    _flushed: trio.Event = attrs.field(init=False, factory=trio.Event)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)
    _stopped: trio.Event = attrs.field(init=False, factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._unwritten = Unwritten(self._wall())
        self._known_day = self._unwritten.today

    def add(self, key: bytes, counts: Counts, day: str | None = None) -> None:
        """Add to the counts of a key, for the current day unless another one is given."""
        self._unwritten.add(key, counts, day)

    def used(self, key: bytes, period: Period) -> int:
        """Return a key's bytes in both directions in the current day or month (UTC).

        Never waits. Connected clients are counted up to the last flush. A key that has not been
        seen since the start of this process is known to the sink only: its earlier usage counts
        from the first flush after its login on.
        """
        written = self._known.get(key, (0, 0))[period is Period.MONTH]
        if self._writing is not None:
            written += self._writing.bytes_of(key, period)
        return written + self._unwritten.bytes_of(key, period)

    @property
    def today(self) -> str:
        """The day that is the current one to `used`, as YYYY-MM-DD."""
        return self._known_day

    def until(self, period: Period) -> str:
        """Return the day on which the current day or month is over, as YYYY-MM-DD."""
        return next_period(self.today, period)

    async def wait_for_flush(self) -> None:
        """Wait until counts are collected the next time, and written if they soon can be."""
        await self._flushed.wait()

    async def run(self, collect: Collect) -> None:
        """Collect and write from time to time, and once more when `close` is called."""
        try:
            async with trio.open_nursery() as nursery:
                await self._flush(nursery)
                is_last = False
                while not is_last:
                    wait = min(self._every, until_midnight(self._wall()) + _SHORTEST_WAIT)
                    with trio.move_on_after(wait):
                        await self._stop.wait()
                    is_last = self._stop.is_set()
                    await collect()
                    await self._flush(nursery)
                    self._flushed.set()
                    self._flushed = trio.Event()
            # Nothing is being written any more.
            await self._write()
            await self._sink.close()
        finally:
            self._stopped.set()

    async def close(self) -> None:
        """Have `run` write once more and end, if a write takes no longer than STOP_TIMEOUT."""
        self._stop.set()
        with trio.move_on_after(STOP_TIMEOUT):
            await self._stopped.wait()

    async def _flush(self, nursery: trio.Nursery) -> None:
        """Have all counts written by a task of `nursery`; wait for it, FLUSH_WAIT at most.

        One write at a time: while it lasts, counts and the change of days go on.
        """
        now = self._wall()
        for each in (self._unwritten, self._writing):
            if each is not None:
                each.roll(now)
        self._roll_known(self._unwritten.today)
        if self._writing is not None:
            return
        self._written = trio.Event()
        nursery.start_soon(self._write)
        with trio.move_on_after(FLUSH_WAIT):
            await self._written.wait()

    async def _write(self) -> None:
        """Write what has been counted, if there is any."""
        unwritten, written = self._unwritten, self._written
        if not unwritten and self._is_written:
            written.set()
            return
        self._writing = taken = unwritten.take()
        today = unwritten.today
        keys = {key for _, key, _ in taken}
        wanted = keys if self._sink.is_shared else keys - self._known.keys()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_if_late)
            try:
                found = await self._sink.write(taken, today, wanted)
                await self._learn(taken, found, today)
            except AccountsFailed as failed:
                unwritten.put_back(taken)
                self._log(failed)
            else:
                self._log_end()
            finally:
                self._writing = None
                written.set()
            nursery.cancel_scope.cancel()

    def _roll_known(self, today: str) -> None:
        """Forget what was used in a day or month that is over."""
        before, self._known_day = self._known_day, today
        if before < today and month_of(before) == month_of(today):
            self._known = {key: (0, month) for key, (_, month) in self._known.items()}
        elif before != today:
            self._known.clear()

    async def _learn(self, written: Unwritten, found: UsedBytes, as_of: str) -> None:
        """Note what is in the sink now, a part in each turn of the event loop.

        `found` holds for the day `as_of`, which may be over.
        """
        while rows := written.pop(KEYS_PER_TURN):
            known, today = self._known, self._known_day
            for day, key, counts in rows:
                before = known.pop(key, (0, 0))
                if key in found:
                    known[key] = self._as_of_today(found[key], as_of)
                elif month_of(day) == month_of(today):
                    more = counts.bytes
                    known[key] = before[0] + more * (day == today), before[1] + more
                else:
                    known[key] = before
            await trio.lowlevel.checkpoint()
        known = self._known
        if self._sink.is_shared:
            known |= {key: self._as_of_today(used, as_of) for key, used in found.items()}
        while len(known) > MAX_KNOWN:
            del known[next(iter(known))]

    def _as_of_today(self, used: tuple[int, int], as_of: str) -> tuple[int, int]:
        """Return the bytes used in the day and month of `as_of`, 0 for a period that is over."""
        today = self._known_day
        if as_of == today:
            return used
        return 0, used[1] if month_of(as_of) == month_of(today) else 0

    async def _log_if_late(self) -> None:
        await trio.sleep(LATE)
        reason = f"writing takes longer than {LATE:.0f} s"
        self._log(AccountsFailed(reason, "see to its disk"))

    def _log(self, failed: AccountsFailed) -> None:
        """Log a trouble, unless it was the last one, too."""
        self._is_written = False
        if self._trouble != str(failed):
            self._trouble = str(failed)
            logger.error(
                "the accounts are kept in memory only",
                file=self._sink.name,
                reason=self._trouble,
                cure=failed.cure,
            )

    def _log_end(self) -> None:
        self._is_written = True
        if self._trouble:
            self._trouble = ""
            logger.info("the accounts are written again", file=self._sink.name)
