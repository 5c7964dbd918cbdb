"""The list of clients with workers: each worker lists its own, a page of them in each call.

    worker                                         supervisor                               worker N
    worker_clients ── clients.page [N, cursor] ──► WorkerClients ── clients.page cursor ──► page
                   ◄─ [clients, cursor] ──────────               ◄─ [clients, cursor] ─────

So no process has a long message to write or to read in one turn of its event loop.
"""

from typing import Final

import trio

from derp import log
from derp.errors import RPCFailed
from derp.service.clients import ClientStatus, Cursor, Listing, page, read_all, with_duplicates
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

_PAGE: Final = "clients.page"
LIST_TIMEOUT: Final = 6.0
"""Seconds for the lists of all workers, which are asked at the same time."""

logger = log.get("workers")


def worker_handlers(state: RelayState) -> dict[str, Handler]:
    """Return the handler of the supervisor's question for a page of this worker's clients."""

    async def own(cursor: Json) -> Json:
        found, after = page(state, cursor)
        return [[status.to_json() for status in found], after]

    return {_PAGE: own}


class _SilentError(Exception):
    """A worker did not answer."""


async def worker_clients(call: Call, workers: int) -> Listing:
    """Return the clients of all workers; `call` asks the supervisor. Raises RPCFailed."""
    lists: dict[int, list[ClientStatus]] = {}
    lost: list[RPCFailed] = []

    async def ask(index: int) -> None:
        async def read(after: Cursor) -> tuple[list[ClientStatus], Cursor]:
            answer = await call(_PAGE, [index, after])
            if answer is None:
                raise _SilentError
            return _read(answer)

        try:
            lists[index] = await read_all(read)
        except RPCFailed as error:
            lost.append(error)
        except _SilentError:
            return

    with trio.move_on_after(LIST_TIMEOUT):
        async with trio.open_nursery() as nursery:
            for index in range(workers):
                nursery.start_soon(ask, index)
    if lost:
        raise lost[0]
    found = [status for index in sorted(lists) for status in lists[index]]
    silent = [index for index in range(workers) if index not in lists]
    return Listing(await with_duplicates(found), silent)


class WorkerClients:
    """The supervisor's side. `handlers` are for the RPC connection of each worker."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self.handlers: dict[str, Handler] = {_PAGE: self._page}

    async def all(self) -> Listing:
        """Return the clients of all workers that answer."""
        return await worker_clients(self._call, self._pool.size)

    async def _call(self, _: str, body: Json) -> Json:
        return await self._page(body)

    async def _page(self, body: Json) -> Json:
        """Return a page of a worker's clients; None if it does not answer."""
        index, cursor = body
        if not self._pool.statuses()[index].alive:
            # It is being restarted, and has no clients.
            return [[], None]
        try:
            return await self._pool.call_one(index, _PAGE, cursor)
        except RPCFailed as error:
            logger.debug("a worker gave no answer", worker=index, reason=str(error))
            return None


def _read(answer: Json) -> tuple[list[ClientStatus], Cursor]:
    rows, after = answer
    return [ClientStatus.from_json(row) for row in rows], after
