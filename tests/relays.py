"""A relay over memory transports: its server, its clients, and how each connection ended."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import nacl.public
import trio

from derp.errors import ConnectionEnd
from derp.metrics import DropReason
from derp.net.address import Endpoint
from derp.session.serve import serve
from derp.session.state import RelayState
from tests.memory_transport import CLIENT, PATIENCE, MemoryTransport, memory_pair
from tests.peers import Peer

MESH_KEY = bytes(range(100, 132))


class Relay:
    """A server, and how each of its connections ended."""

    def __init__(self, state: RelayState, nursery: trio.Nursery) -> None:
        self.state = state
        self.metrics = state.metrics
        self.hub = state.hub
        self._nursery = nursery
        self._ends: dict[MemoryTransport, ConnectionEnd | None] = {}
        self._ended = trio.Event()

    def connect(
        self,
        key: nacl.public.PrivateKey | None = None,
        capacity: int = 1 << 20,
        leftover: bytes = b"",
        *,
        client: Endpoint = CLIENT,
        answer: bytes = b"",
        not_ideal: bool = False,
    ) -> Peer:
        here, there = memory_pair(capacity=capacity, client=client)

        async def connection() -> None:
            fields: dict[str, Any] = {}
            end = None
            try:
                await serve(self.state, there, leftover, fields, answer=answer, not_ideal=not_ideal)
            except ConnectionEnd as error:
                end = error
            finally:
                with trio.CancelScope(shield=True):
                    await there.aclose()
            self._ends[here] = end
            self._ended.set()
            self._ended = trio.Event()

        self._nursery.start_soon(connection)
        return Peer(here, key)

    async def login(self, **options: Any) -> Peer:
        return await self.connect(**options).log_in()

    async def mesh_login(self, **options: Any) -> Peer:
        """Log in as a mesh peer of a relay that `with_mesh_key` has prepared."""
        return await self.connect(**options).log_in(meshKey=MESH_KEY.hex())

    async def end_of(self, peer: Peer) -> ConnectionEnd | None:
        with trio.fail_after(PATIENCE):
            while peer.end not in self._ends:
                await self._ended.wait()
        return self._ends[peer.end]

    def dropped(self, reason: DropReason, *, disco: bool = False) -> int:
        return self.metrics.packets_dropped[reason, disco]


def with_mesh_key(state: RelayState) -> None:
    state.mesh_key = MESH_KEY


@contextlib.asynccontextmanager
async def running(
    prepare: Callable[[RelayState], None] | None = None,
    *,
    write_timeout: float = 2.0,
    **options: Any,
) -> AsyncIterator[Relay]:
    """Run a relay, which `prepare` may change first; see that nothing of its clients is left."""
    async with trio.open_nursery() as nursery:
        private = nacl.public.PrivateKey.generate()
        state = RelayState(private, nursery, write_timeout, **options)
        if prepare is not None:
            prepare(state)
        nursery.start_soon(state.timers.run)
        relay = Relay(state, nursery)
        yield relay
        assert relay.hub.check() == []
        nursery.cancel_scope.cancel()
    assert not relay.hub.members
    assert not state.presence.watchers
    assert not state.send_tasks.sending
    assert state.memory.held == 0
    assert len(state.timers.keep_alives) == len(state.timers.round_trips) == 0
