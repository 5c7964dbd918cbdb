"""The workers of one relay in one process: servers with one key, meshed over memory transports."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import nacl.public
import trio
from trio.testing import wait_all_tasks_blocked

from derp.errors import ConnectionEnd, NoLink
from derp.net.address import Endpoint
from derp.net.backoff import Backoff
from derp.net.transport import Transport
from derp.session.state import RelayState
from derp.workers.links import FIRST_DELAY, LONGEST_DELAY, WorkerKeeper, serve_worker
from tests.memory_transport import MemoryTransport, memory_pair
from tests.relays import MESH_KEY, Relay, running

WORKER_KEY = bytes(range(50, 82))


class Workers:
    """Relays that are workers of one; `links` has the dialling end of each link, by the pair."""

    def __init__(self, relays: list[Relay], nursery: trio.Nursery, capacity: int) -> None:
        self.relays = relays
        self.links: dict[tuple[int, int], MemoryTransport] = {}
        self.ends: list[ConnectionEnd] = []
        self.down: set[tuple[int, int]] = set()
        """The pairs of which the first can't reach the second."""
        self.keepers: dict[tuple[int, int], WorkerKeeper] = {}
        self._nursery = nursery
        self._capacity = capacity

    def start(self) -> None:
        for number, relay in enumerate(self.relays):
            for other in range(len(self.relays)):
                if other != number:
                    keeper = self._keeper(relay.state, number, other)
                    self.keepers[number, other] = keeper
                    self._nursery.start_soon(keeper.run)

    def _keeper(self, state: RelayState, number: int, other: int) -> WorkerKeeper:
        async def connect() -> tuple[Transport, bytes]:
            await trio.lowlevel.checkpoint()
            if (number, other) in self.down:
                raise NoLink("it can't be dialled")
            ends = Endpoint("worker", other), Endpoint("worker", number)
            here, there = memory_pair(capacity=self._capacity, client=ends[1], server=ends[0])
            self.links[number, other] = here
            self._nursery.start_soon(self._serve, self.relays[other].state, there)
            return here, b""

        backoff = Backoff(lambda: 0.0, first=FIRST_DELAY, longest=LONGEST_DELAY)
        return WorkerKeeper(state, f"worker {other}", connect, backoff)

    async def _serve(self, state: RelayState, there: MemoryTransport) -> None:
        try:
            await serve_worker(state, there)
        except ConnectionEnd as error:
            self.ends.append(error)
        finally:
            there.close()

    def cut(self, number: int, other: int) -> None:
        """Cut the link by which one worker hears of another, for as long as it is in `down`."""
        self.down.add((number, other))
        self.links[number, other].peer.abort()

    def total(self, name: str) -> int:
        return sum(getattr(relay.metrics, name) for relay in self.relays)

    def drops(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for relay in self.relays:
            for (reason, _), count in relay.metrics.packets_dropped.items():
                if count:
                    counts[reason.value] = counts.get(reason.value, 0) + count
        return counts


@contextlib.asynccontextmanager
async def workers(
    count: int = 2, capacity: int = 1 << 20, **options: Any
) -> AsyncIterator[Workers]:
    """Run workers of one relay; `options` are those of RelayState."""
    private = nacl.public.PrivateKey.generate()

    def prepare(number: int, state: RelayState) -> None:
        state.private_key = private
        state.public_key = bytes(private.public_key)
        state.mesh_key = MESH_KEY
        state.become_worker(number, WORKER_KEY)
        state.shared_clock = lambda: int(trio.current_time() * 1e9) + 1

    async with contextlib.AsyncExitStack() as stack:
        relays = [
            await stack.enter_async_context(running(partial(prepare, number), **options))
            for number in range(count)
        ]
        async with trio.open_nursery() as nursery:
            found = Workers(relays, nursery, capacity)
            found.start()
            await wait_all_tasks_blocked()
            yield found
            for relay in relays:
                assert relay.hub.check() == []
            nursery.cancel_scope.cancel()
        for relay in relays:
            assert not relay.hub.other_workers.best
            assert not relay.hub.passive
            assert not relay.state.worker_links
            assert not relay.state.presence.worker_watchers
