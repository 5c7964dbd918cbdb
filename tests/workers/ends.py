"""A supervisor and its workers in one process: calls that go through JSON, and nothing else."""

import json
from collections.abc import Mapping

import trio

from derp.errors import RPCFailed
from derp.workers.pool import WorkerStatus
from derp.workers.rpc import Call, Handler, Json

ANSWER_TIMEOUT = 3.0
"""As that of the pool."""


def through_json(body: Json) -> Json:
    return json.loads(json.dumps(body))


class Line:
    """From a worker to its supervisor. `said` is all that went over it, as text."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers
        self.lost = False
        self.asked: list[str] = []

    async def call(self, what: str, body: Json = None) -> Json:
        await trio.lowlevel.checkpoint()
        if self.lost:
            raise RPCFailed(f"the other process ended before it answered {what}")
        self.asked.append(what)
        return through_json(await self.handlers[what](through_json(body)))


class Pool:
    """From the supervisor to its workers, of whom some may be late, or not there."""

    def __init__(self, *workers: Mapping[str, Handler] | None) -> None:
        self.workers = list(workers)
        self.late: set[int] = set()
        self.said: list[tuple[str, Json]] = []

    @property
    def size(self) -> int:
        return len(self.workers)

    def statuses(self) -> list[WorkerStatus]:
        return [WorkerStatus(7, 0, handlers is not None) for handlers in self.workers]

    async def call_all(self, what: str, body: Json = None) -> dict[int, Json]:
        self.said.append((what, through_json(body)))
        answers: dict[int, Json] = {}

        async def ask(index: int, handlers: Mapping[str, Handler]) -> None:
            await trio.lowlevel.checkpoint()
            if index in self.late:
                await trio.sleep(60.0)
            answers[index] = through_json(await handlers[what](through_json(body)))

        with trio.move_on_after(ANSWER_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for index, handlers in enumerate(self.workers):
                    if handlers is not None:
                        nursery.start_soon(ask, index, handlers)
        return answers


def lost_call() -> Call:
    line = Line({})
    line.lost = True
    return line.call
