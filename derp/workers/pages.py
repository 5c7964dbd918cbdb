"""The pages of a relay with workers: the same whichever worker is asked for one.

HTTP ──► WorkerPages      ── pages.rows, .varz, … ──────────► SupervisorPages, which merges
         worker_handlers  ◄─ pages.snapshot, .check, … ──────  what each worker answers
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

import attrs

from certs.tasks.manager import Certificates
from derp.admission.checker import Checker
from derp.config import Config
from derp.metrics import Metrics, render, render_expvar
from derp.service.debugrows import (
    StatusRow,
    admission_problems,
    admission_rows,
    certificate_rows,
    relay_rows,
)
from derp.service.running import Age, RunningRelay
from derp.service.status import Snapshot, capture, certificate, process_gauges
from derp.service.tls import ServerContexts
from derp.service.traffic import Traffic, traffic
from derp.workers.merge import dump, final, load, merge
from derp.workers.pool import WorkerPool, WorkerStatus
from derp.workers.rpc import Call, Handler, Json

_ROWS: Final = "pages.rows"
_VARZ: Final = "pages.varz"
_EXPVARS: Final = "pages.expvars"
_PROBLEMS: Final = "pages.problems"
_TRAFFIC: Final = "pages.traffic"
"""Of the supervisor: for all workers. Of a worker: for its own clients."""
_SNAPSHOT: Final = "pages.snapshot"
_CHECK: Final = "pages.check"
"""A walk over all clients of a worker, in which no packet moves."""

_SILENT: Final = "does not answer"
_RESTARTING: Final = "is being restarted"


class WorkerPages:
    """What a worker shows, each page as the supervisor answers."""

    def __init__(self, call: Call) -> None:
        """`call` asks the supervisor."""
        self._call = call

    async def rows(self) -> Sequence[StatusRow]:
        """Return the names and values at the top of /debug/. Raises ControlLost."""
        return cast("Sequence[StatusRow]", await self._call(_ROWS, None))

    async def varz(self) -> str:
        """Return the figures in the Prometheus text format. Raises ControlLost."""
        return cast("str", await self._call(_VARZ, None))

    async def expvars(self) -> str:
        """Return the figures as JSON. Raises ControlLost."""
        return cast("str", await self._call(_EXPVARS, None))

    async def problems(self) -> Sequence[str]:
        """Return what is inconsistent, a line each. Raises ControlLost."""
        return cast("Sequence[str]", await self._call(_PROBLEMS, None))

    async def traffic(self) -> Sequence[Traffic]:
        """Return the bytes of each client of all workers. Raises ControlLost."""
        found = await self._call(_TRAFFIC, None)
        return [Traffic(*each)._replace(key=bytes.fromhex(each[1])) for each in found]


def worker_handlers(relay: RunningRelay) -> dict[str, Handler]:
    """Return what a worker answers the supervisor, of itself alone."""

    async def snapshot(_: Json) -> Json:
        return dump(capture(relay))

    async def check(_: Json) -> Json:
        return relay.state.hub.check()

    async def own_traffic(_: Json) -> Json:
        return [[each.connection, each.key.hex(), *each[2:]] for each in traffic(relay.state)]

    return {_SNAPSHOT: snapshot, _CHECK: check, _TRAFFIC: own_traffic}


class SupervisorPages:
    """What the supervisor answers to the workers: `handlers`.

    `call_all` of the pool has to return well before a worker's call to the supervisor times out:
    else a worker that is stuck is not named, and takes all pages away.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        checker: Checker | None,
        certificates: Certificates[ServerContexts] | None,
        pool: WorkerPool,
    ) -> None:
        """Show `metrics`, `checker` and `certificates`, which only the supervisor has."""
        self.handlers: dict[str, Handler] = {
            _ROWS: self._rows,
            _VARZ: self._varz,
            _EXPVARS: self._expvars,
            _PROBLEMS: self._problems,
            _TRAFFIC: self._traffic,
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
        """At most one: of all processes that others have replaced."""

    async def _rows(self, _: Json) -> Json:
        snapshots = await self._ask()
        relay = merge([self._own(), *snapshots.values()])
        return [
            *relay_rows(self._config, relay.gauges),
            *self._worker_rows(snapshots),
            *certificate_rows(self._certificates),
            *admission_rows(self._checker),
        ]

    async def _varz(self, _: Json) -> Json:
        relay = await self._relay()
        return render(relay.metrics, relay.gauges)

    async def _expvars(self, _: Json) -> Json:
        relay = await self._relay()
        return render_expvar(relay.metrics, relay.gauges)

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

    async def _relay(self) -> Snapshot:
        """Return what all processes are together, those that have ended included."""
        await self._ask()
        statuses = self._pool.statuses()
        snapshots, ended = [self._own()], [*self._ended]
        for number, snapshot in self._last.items():
            # A worker that lives and does not answer in time is shown by its last answer.
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
        """Return the snapshot of the supervisor itself, which stands for the relay."""
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
            yield f"Worker {number}", f"{text}, restarts: {status.restarts}"
            for name, value in () if snapshot is None else snapshot.links:
                yield f"{name} from worker {number}", value


def _problems_of(status: WorkerStatus, found: Sequence[str] | None) -> Sequence[str]:
    """Return what is wrong with a worker; `found` is its own answer, None if it gave none."""
    if not status.alive:
        return [_RESTARTING]
    return [_SILENT] if found is None else found
