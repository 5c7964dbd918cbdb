"""The list of clients with workers: each worker lists its own, a page of them in each call.

    worker                           supervisor                       worker N
    worker_clients ── clients.page [N, place] ──► WorkerClients ── clients.page place ──► page
                   ◄─ [clients, place] ─────────                ◄─ [clients, place] ─────

So no process has a long message to write or to read in one turn of its event loop.
"""

from collections.abc import Sequence
from typing import Final

from derp import log
from derp.errors import ControlLost
from derp.service.clients import ClientStatus, Place, page, read_all, with_duplicates
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

_PAGE: Final = "clients.page"

logger = log.get("workers")


def worker_handlers(state: RelayState) -> dict[str, Handler]:
    """Return the handler of the supervisor's question for a page of this worker's clients."""

    async def own(place: Json) -> Json:
        found, after = page(state, place)
        return [[status.to_json() for status in found], after]

    return {_PAGE: own}


async def worker_clients(call: Call, workers: int) -> Sequence[ClientStatus]:
    """Return the clients of all workers; `call` asks the supervisor. Raises ControlLost."""
    found: list[ClientStatus] = []
    for index in range(workers):

        async def read(after: Place, index: int = index) -> tuple[list[ClientStatus], Place]:
            return _read(await call(_PAGE, [index, after]))

        found += await read_all(read)
    return await with_duplicates(found)


class WorkerClients:
    """The supervisor's side. `handlers` are for the control connection of each worker."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self.handlers: dict[str, Handler] = {_PAGE: self._page}

    async def all(self) -> list[ClientStatus]:
        """Return the clients of all workers, without those of one that does not answer."""
        return [*await worker_clients(self._call, self._pool.size)]

    async def _call(self, _: str, body: Json) -> Json:
        return await self._page(body)

    async def _page(self, body: Json) -> Json:
        index, place = body
        try:
            return await self._pool.call_one(index, _PAGE, place)
        except ControlLost as error:
            logger.debug("a worker gave no answer", worker=index, reason=str(error))
            return [[], None]


def _read(answer: Json) -> tuple[list[ClientStatus], Place]:
    rows, after = answer
    return [ClientStatus.from_json(row) for row in rows], after
