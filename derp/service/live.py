"""The live page: samples the relay while somebody looks, and sends those who look what has changed.

    Pages ──► Sampler ── View ──► page at /debug/
                            └──► Viewer ──► events, for each of MAX_STREAMS

All who look at one process share its samples. Nothing is sampled while nobody looks, but the
traffic of the relay as a whole (derp.metrics.history).
"""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final, NoReturn

import trio

from derp.http.liveevents import RETRY, Viewer, busy
from derp.http.livepage import Look, pieces
from derp.http.liveview import ClientRow, StatusRow, View, make_view
from derp.service.clients import ClientStatus
from derp.service.liverows import client_row
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
_SHORTEST: Final = 0.001
"""Seconds between two samples, at least, for their rates."""


class Live:
    """The live page of one process, which shows the whole relay."""

    def __init__(self, relay: RunningRelay, pages: Pages) -> None:
        self._relay = relay
        self._sampler = Sampler(pages)
        self._streams = 0

    async def keep(self) -> NoReturn:
        """Note the traffic of this process every second, and forget old samples."""
        state, history = self._relay.state, self._relay.history
        while True:
            now = state.shared_clock() / 1e9
            history.sample(now, state.metrics.bytes_received, state.metrics.bytes_sent)
            self._sampler.forget_old()
            # In step with the other workers.
            await trio.sleep(1.0 - now % 1.0)

    async def page(self, look: Look) -> bytes:
        """Return the page. Raises ControlLost if another process can't be asked."""
        view = await self._sampler.latest()
        made = []
        for piece in pieces(view, look):
            made.append(piece.encode())
            await trio.lowlevel.checkpoint()
        return b"".join(made)

    async def events(self, sort: str) -> AsyncGenerator[bytes, None]:
        """Yield what changes, for one who looks; endless. Raises ControlLost."""
        if self._streams >= MAX_STREAMS:
            yield busy(f"not live: {MAX_STREAMS} others look at this page")
            return
        self._streams += 1
        try:
            yield RETRY
            viewer = Viewer(sort)
            while True:
                for event in viewer.events(await self._sampler.latest()):
                    yield event
                    await trio.lowlevel.checkpoint()
                await self._sampler.wait_until_old()
        finally:
            self._streams -= 1


class Sampler:
    """Takes samples of a relay: one at a time, and no more than are needed."""

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
        """Return the relay as it is about now. Raises ControlLost."""
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
        clients = await self._pages.clients()
        rows = await self._rows(clients)
        now = trio.current_time()
        if now >= self._status_good_until:
            self._status = [StatusRow(*row) for row in await self._pages.rows()]
            self._status_good_until = now + STATUS_EVERY
        pasts = await self._pages.past()
        interval = max(SAMPLE_EVERY, len(clients) / CLIENTS_PER_SECOND)
        self._good_until = trio.current_time() + min(interval, LONGEST_INTERVAL)
        return make_view(
            rows,
            at_home=sum(status.home for status in clients),
            waiting=sum(status.queued_bytes for status in clients),
            pasts=pasts,
            status=self._status,
        )

    async def _rows(self, clients: Sequence[ClientStatus]) -> list[ClientRow]:
        """Return the rows of `clients`, who have just been asked for, with their rates."""
        before, moved = self._moved, {}
        now, unix_time = trio.current_time(), time.time()
        seconds = max(_SHORTEST, now - self._sampled_at)
        workers = any(status.worker for status in clients)
        rows = []
        for number, status in enumerate(clients, 1):
            speed = None
            if (earlier := before.get(status.connection)) is not None:
                sent, received = earlier
                speed = (status.sent - sent) / seconds, (status.received - received) / seconds
            moved[status.connection] = status.sent, status.received
            rows.append(client_row(status, speed, unix_time, workers=workers))
            if not number % _ROWS_PER_TURN:
                await trio.lowlevel.checkpoint()
        self._moved, self._sampled_at = moved, now
        return rows
