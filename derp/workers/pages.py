"""The pages of a relay with workers: the same whichever worker is asked for one.

HTTP ──► worker_pages     ── pages.rows, .varz, … ──────────► SupervisorPages, which merges
         worker_handlers  ◄─ pages.snapshot, .check, … ──────  what each worker answers
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from certs.tasks.manager import Certificates
from derp.admission.checker import Checker
from derp.admission.refusals import Refusal, merged
from derp.config import Config
from derp.http.liveview import StatusRow
from derp.metrics import Metrics, render_expvar, render_varz
from derp.metrics.history import SPANS, Past, added
from derp.service.control import RefusedKeys
from derp.service.debugrows import (
    admission_problems,
    admission_rows,
    certificate_rows,
    refused_rows,
    relay_rows,
)
from derp.service.keybook import KeyBook
from derp.service.running import Age, RunningRelay
from derp.service.status import Pages, Snapshot, capture, certificate, process_gauges
from derp.service.tls import ServerContexts
from derp.service.traffic import Traffic, traffic
from derp.workers import steering
from derp.workers.clients import worker_clients
from derp.workers.merge import dump, final, load, merge
from derp.workers.pool import WorkerPool, WorkerStatus
from derp.workers.rpc import Call, Handler, Json

_ROWS: Final = "pages.rows"
_VARZ: Final = "pages.varz"
_EXPVARS: Final = "pages.expvars"
_PROBLEMS: Final = "pages.problems"
_TRAFFIC: Final = "pages.traffic"
_PAST: Final = "pages.past"
"""The supervisor answers these two for all workers, a worker for itself."""
_SNAPSHOT: Final = "pages.snapshot"
_REFUSED: Final = "pages.refused"
_CHECK: Final = "pages.check"
"""A walk over all clients of a worker, in which no packet moves."""

_SILENT: Final = "does not answer"
_RESTARTING: Final = "is being restarted"


def worker_pages(call: Call, workers: int) -> Pages:
    """Return the pages that one of `workers` shows; `call` asks the supervisor for each."""

    async def all_traffic() -> Sequence[Traffic]:
        found = await call(_TRAFFIC, None)
        return [Traffic(*each)._replace(key=bytes.fromhex(each[1])) for each in found]

    async def past() -> Sequence[Past]:
        return _load_pasts(await call(_PAST, None))

    return Pages(
        rows=partial(call, _ROWS, None),
        varz=partial(call, _VARZ, None),
        expvars=partial(call, _EXPVARS, None),
        problems=partial(call, _PROBLEMS, None),
        traffic=all_traffic,
        clients=partial(worker_clients, call, workers),
        past=past,
        steer=partial(steering.steer, call),
    )


def worker_handlers(relay: RunningRelay) -> dict[str, Handler]:
    """Return the handlers of the supervisor's questions about this worker alone."""

    async def snapshot(_: Json) -> Json:
        return dump(capture(relay))

    async def check(_: Json) -> Json:
        return relay.state.hub.check()

    async def own_traffic(_: Json) -> Json:
        return [[each.connection, each.key.hex(), *each[2:]] for each in traffic(relay.state)]

    async def past(_: Json) -> Json:
        return _dump_pasts(relay.history.past())

    async def refused(_: Json) -> Json:
        return [each.to_json() for each in relay.state.refusals.latest()]

    return {
        _SNAPSHOT: snapshot,
        _CHECK: check,
        _TRAFFIC: own_traffic,
        _PAST: past,
        _REFUSED: refused,
    }


class SupervisorPages:
    """The supervisor's answers to the workers: `handlers`.

    The pool's `call_all` has to return well before a worker's call to the supervisor times out, or
    one stuck worker would keep all pages from being shown.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        checker: Checker | None,
        certificates: Certificates[ServerContexts] | None,
        pool: WorkerPool,
        book: KeyBook,
    ) -> None:
        """Show `metrics`, `checker` and `certificates`, which only the supervisor has."""
        self._book = book
        self.handlers: dict[str, Handler] = {
            _ROWS: self._rows,
            _VARZ: self._varz,
            _EXPVARS: self._expvars,
            _PROBLEMS: self._problems,
            _TRAFFIC: self._traffic,
            _PAST: self._past,
        }
        self._config = config
        self._metrics = metrics
        self._checker = checker
        self._certificates = () if certificates is None else certificates.statuses
        self._pool = pool
        self._age = Age()
        self._last: dict[int, Snapshot] = {}
        """The last snapshot of each worker."""
        self._ended: list[Snapshot] = []
        """One at most: the merged snapshot of all processes that were replaced."""

    async def _rows(self, _: Json) -> Json:
        snapshots = await self._ask()
        merged = merge([self._own(), *snapshots.values()])
        return [
            *relay_rows(self._config, merged.gauges),
            *self._worker_rows(snapshots),
            *certificate_rows(self._certificates),
            *admission_rows(self._checker),
            *refused_rows((await self.refused()).keys, self._book),
        ]

    async def refused(self) -> RefusedKeys:
        """Return the keys that the workers which answer have refused last."""
        # One that is being restarted has refused none.
        asked = {index for index, status in enumerate(self._pool.statuses()) if status.alive}
        answers = await self._pool.call_all(_REFUSED)
        keys = merged(Refusal.from_json(row) for rows in answers.values() for row in rows)
        return RefusedKeys(keys, sorted(asked - answers.keys()))

    async def _varz(self, _: Json) -> Json:
        merged = await self.merged()
        return render_varz(merged.metrics, merged.gauges)

    async def _expvars(self, _: Json) -> Json:
        merged = await self.merged()
        return render_expvar(merged.metrics, merged.gauges)

    async def _problems(self, _: Json) -> Json:
        answers = await self._pool.call_all(_CHECK)
        problems = []
        for number, status in enumerate(self._pool.statuses()):
            found = _problems_of(status, answers.get(number))
            problems += [f"worker {number}: {problem}" for problem in found]
        return [*problems, *admission_problems(self._checker)]

    async def _traffic(self, _: Json) -> Json:
        answers = await self._pool.call_all(_TRAFFIC)
        return [
            # Several workers may use the same name for a connection.
            [f"{number} {connection}", *rest]
            for number, clients in answers.items()
            for connection, *rest in clients
        ]

    async def _past(self, _: Json) -> Json:
        answers = await self._pool.call_all(_PAST)
        workers = [_load_pasts(answer) for answer in answers.values()]
        return _dump_pasts(
            [added(each[number] for each in workers) for number in range(len(SPANS))]
        )

    async def merged(self) -> Snapshot:
        """Return the merged snapshot of all processes, those that have ended included."""
        await self._ask()
        statuses = self._pool.statuses()
        snapshots, ended = [self._own()], [*self._ended]
        for number, snapshot in self._last.items():
            # For a worker that lives but did not answer in time, its last answer counts.
            if statuses[number].alive and statuses[number].pid == snapshot.pid:
                snapshots.append(snapshot)
            else:
                ended.append(final(snapshot))
        return merge(snapshots, ended)

    async def _ask(self) -> dict[int, Snapshot]:
        """Ask all workers; return the snapshots of those that answered."""
        answers = await self._pool.call_all(_SNAPSHOT)
        snapshots = {number: load(answer) for number, answer in answers.items()}
        for number, snapshot in snapshots.items():
            last = self._last.get(number)
            # Several calls may be under way at once, and be answered in any order.
            if last is not None and last.taken >= snapshot.taken:
                continue
            if last is not None and last.pid != snapshot.pid:
                self._ended = [merge([*self._ended, final(last)])]
            self._last[number] = snapshot
        return snapshots

    def _own(self) -> Snapshot:
        """Return the supervisor's own snapshot, the first of a merge."""
        statuses = self._pool.statuses()
        gauges = attrs.evolve(
            process_gauges(self._age),
            serves_tls=self._config.serve_tls,
            certificates=[certificate(status) for status in self._certificates],
            workers=sum(status.alive for status in statuses),
            worker_restarts=sum(status.restarts for status in statuses),
        )
        return Snapshot(pid=os.getpid(), taken=0.0, metrics=self._metrics, gauges=gauges)

    def _worker_rows(self, snapshots: Mapping[int, Snapshot]) -> Iterable[StatusRow]:
        for number, status in enumerate(self._pool.statuses()):
            snapshot = snapshots.get(number)
            text = _SILENT if status.alive else _RESTARTING
            if status.alive and snapshot is not None:
                clients = snapshot.gauges.current_connections
                text = f"{clients} clients, process {snapshot.pid}"
            value = f"{text}, restarts: {status.restarts}"
            yield StatusRow(f"Worker {number}", value, "Workers")
            for link in () if snapshot is None else snapshot.links:
                yield link._replace(name=f"{link.name} from worker {number}")


def _problems_of(status: WorkerStatus, found: Sequence[str] | None) -> Sequence[str]:
    """Return a worker's problems; `found` is its answer, None if it gave none."""
    if not status.alive:
        return [_RESTARTING]
    return [_SILENT] if found is None else found


def _dump_pasts(pasts: Sequence[Past]) -> Json:
    return [[past.end, past.rates] for past in pasts]


def _load_pasts(dumped: Json) -> list[Past]:
    return [Past(end, tuple((received, sent) for received, sent in rates)) for end, rates in dumped]
