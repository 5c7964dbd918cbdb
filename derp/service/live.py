"""The live page: samples of the relay while there are viewers, and each viewer's events.

    Pages ──► Sampler ── View ──► page at /debug/
                            └──► Viewer ──► events, for each of MAX_STREAMS

All viewers at one process share its samples. Without viewers nothing is sampled but the traffic of
the relay as a whole (derp.metrics.history).
"""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, NoReturn

import trio

from derp.http.liveevents import RETRY, Viewer, busy
from derp.http.livepage import PageOptions, pieces
from derp.http.liveview import SORTS, ClientRow, SortKeys, StatusRow, View, first_of, make_view
from derp.service.clients import ClientStatus
from derp.service.liverows import Speed, client_row, sort_keys
from derp.service.running import RunningRelay
from derp.service.status import Pages

MAX_STREAMS: Final = 8
"""Streams of events that a process sends at a time."""
CLIENTS_PER_SECOND: Final = 250
"""With more clients than these, samples are taken less often than every SAMPLE_EVERY seconds."""
SAMPLE_EVERY: Final = 1.0
LONGEST_INTERVAL: Final = 15.0
STATUS_EVERY: Final = 5.0
"""Seconds between looks at certificates, links and so on."""
KEPT: Final = 30.0
"""Seconds for which a sample is kept, so that rates can be told by the next one."""
_ROWS_PER_TURN: Final = 64
_FREED_PER_TURN: Final = 500
_SHORTEST: Final = 0.001
"""Seconds between two samples, at least, for their rates."""


class Live:
    """The live page of one process, which shows the whole relay."""

    def __init__(self, relay: RunningRelay, pages: Pages) -> None:
        self._relay = relay
        self._sampler = Sampler(pages)
        self._streams = 0
        self._last_in_line = trio.Event()
        """Set when the last of those that wait for a turn of their own has it."""
        self._last_in_line.set()

    async def keep(self) -> NoReturn:
        """Note the traffic of this process every second, and forget old samples."""
        state, history = self._relay.state, self._relay.history
        while True:
            now = state.shared_clock() / 1e9
            history.sample(now, state.metrics.bytes_received, state.metrics.bytes_sent)
            self._sampler.forget_old()
            # In step with the other workers.
            await trio.sleep(1.0 - now % 1.0)

    async def page(self, options: PageOptions) -> bytes:
        """Return the page. Raises RPCFailed if another process can't be asked."""
        view = await self._sampler.latest()
        made = []
        await self._own_turn()
        for piece in pieces(view, options):
            made.append(piece.encode())
            await self._own_turn()
        return b"".join(made)

    async def events(self, sort: str) -> AsyncGenerator[bytes, None]:
        """Yield the events for one viewer; endless. Raises RPCFailed."""
        if self._streams >= MAX_STREAMS:
            yield busy(f"not live: {MAX_STREAMS} others look at this page")
            return
        self._streams += 1
        try:
            yield RETRY
            viewer = Viewer(sort)
            while True:
                view = await self._sampler.latest()
                await self._own_turn()
                for event in viewer.events(view):
                    yield event
                    await self._own_turn()
                await self._sampler.wait_until_old()
        finally:
            self._streams -= 1

    async def _own_turn(self) -> None:
        """Return in a later turn of the event loop, in which no other viewer is served.

        All viewers wake at once when there is a new sample.
        """
        predecessor, self._last_in_line = self._last_in_line, trio.Event()
        own = self._last_in_line
        try:
            # Once set, it wakes in the next turn.
            await predecessor.wait()
        finally:
            own.set()


class Sampler:
    """The sampler of a relay: takes one sample at a time, and no more than are needed."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._view: View | None = None
        self._moved: dict[str, tuple[int, int]] = {}
        """The bytes to and from each client in the last sample, by `connection`."""
        self._sampled_at = 0.0
        self._good_until = 0.0
        self._sampling: trio.Event | None = None
        """Set when the sample that is being taken is there; None if none is."""
        self._status: Sequence[StatusRow] = ()
        self._status_good_until = 0.0

    async def latest(self) -> View:
        """Return the relay as it is about now. Raises RPCFailed."""
        while self._view is None or trio.current_time() >= self._good_until:
            if self._sampling is not None:
                await self._sampling.wait()
                continue
            self._sampling = done = trio.Event()
            try:
                self._view = await self._sample()
            finally:
                self._sampling = None
                done.set()
        return self._view

    async def wait_until_old(self) -> None:
        """Return once `latest` would take another sample."""
        await trio.sleep_until(self._good_until)

    def forget_old(self) -> None:
        """Forget the sample if nobody has asked for a long time."""
        if self._view is not None and trio.current_time() > self._good_until + KEPT:
            self._view, self._moved, self._status = None, {}, ()
            self._status_good_until = 0.0

    async def _sample(self) -> View:
        """Take a sample, in steps that are short with thousands of clients, too."""
        listing = await self._pages.clients()
        clients, silent = [*listing.clients], listing.silent
        del listing
        count = len(clients)
        await trio.lowlevel.checkpoint()
        at_home = sum(status.home for status in clients)
        waiting = sum(status.queued_bytes for status in clients)
        rows = await self._rows(clients)
        await _free(clients)
        now = trio.current_time()
        if now >= self._status_good_until:
            self._status = [StatusRow(*row) for row in await self._pages.rows()]
            self._status_good_until = now + STATUS_EVERY
            await trio.lowlevel.checkpoint()
        pasts = await self._pages.past()
        await trio.lowlevel.checkpoint()
        interval = max(SAMPLE_EVERY, count / CLIENTS_PER_SECOND)
        self._good_until = trio.current_time() + min(interval, LONGEST_INTERVAL)
        return make_view(
            rows,
            count=count,
            at_home=at_home,
            waiting=waiting,
            silent=silent,
            pasts=pasts,
            status=self._status,
        )

    async def _rows(self, clients: Sequence[ClientStatus]) -> Mapping[str, list[ClientRow]]:
        """Return the rows to be shown of `clients`, who have just been asked for, by order."""
        before, moved = self._moved, {}
        now, unix_time = trio.current_time(), time.time()
        seconds = max(_SHORTEST, now - self._sampled_at)
        all_keys: list[SortKeys] = []
        for number, status in enumerate(clients):
            if not number % _ROWS_PER_TURN:
                await trio.lowlevel.checkpoint()
            moved[status.connection] = status.sent, status.received
            speed = _speed(before, status, seconds)
            all_keys.append(sort_keys(status, speed, number))
        first = {sort: await _first(all_keys, sort) for sort in SORTS}
        numbers = {one.number for some in first.values() for one in some}
        workers = any(status.worker for status in clients)
        made: dict[int, ClientRow] = {}
        for number in numbers:
            if not len(made) % _ROWS_PER_TURN:
                await trio.lowlevel.checkpoint()
            speed = _speed(before, clients[number], seconds)
            made[number] = client_row(clients[number], speed, unix_time, workers=workers)
        self._moved, self._sampled_at = moved, now
        await _free(all_keys)
        while before:
            for _ in range(min(_FREED_PER_TURN, len(before))):
                before.popitem()
            await trio.lowlevel.checkpoint()
        return {sort: [made[one.number] for one in some] for sort, some in first.items()}


def _speed(before: Mapping[str, tuple[int, int]], status: ClientStatus, seconds: float) -> Speed:
    """Return the speed of a client; `before` as Sampler's `_moved`, so many seconds ago."""
    if (earlier := before.get(status.connection)) is None:
        return None
    sent, received = earlier
    return (status.sent - sent) / seconds, (status.received - received) / seconds


async def _first(clients: Sequence[SortKeys], sort: str) -> list[SortKeys]:
    """Return those to be shown in an order; other tasks run between."""
    first: list[SortKeys] = []
    for found in first_of(clients, sort):
        first = found
        await trio.lowlevel.checkpoint()
    return first


async def _free(items: list[Any]) -> None:
    """Empty a list in several turns: to free thousands of objects takes long."""
    while items:
        del items[-_FREED_PER_TURN:]
        await trio.lowlevel.checkpoint()
