"""The relay's pages, made by the supervisor of the workers of what each of them says.

Whichever worker is asked by HTTP asks the supervisor (derp.workers.workerpages), and so all show
the same. What a worker had counted when it was last asked stays in the sum after its end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import derp
from certs.tasks.manager import Certificates
from derp.admission.checker import Checker
from derp.config import Config
from derp.http.bootstrap_dns import BootstrapDNS
from derp.metrics import Gauges, Metrics, process, render, render_expvar
from derp.service.status import (
    Age,
    StatusRow,
    admission_facts,
    admission_problems,
    certificate,
    certificate_facts,
    relay_facts,
    tasks,
)
from derp.service.tls import ServerContexts
from derp.workers.asking import Workers
from derp.workers.merge import merge, retired
from derp.workers.rpc import Handler, Json
from derp.workers.snapshot import Snapshot, load
from derp.workers.workerpages import CHECK, EXPVARS, FACTS, PROBLEMS, SHARE, TRAFFIC, VARZ
from stun.server import Stats

_SILENT: Final = "does not answer"
_RESTARTING: Final = "is being restarted"


class WorkerStatus(NamedTuple):
    """How a worker is."""

    pid: int | None
    """None, or the last one, where it does not live."""
    restarts: int
    alive: bool


class SupervisorPages:
    """What the supervisor answers to the workers, who answer by HTTP: `handlers`.

    `each` of the pool has to give up well before a worker gives up the supervisor: else a worker
    that is stuck is not named, and takes all pages away.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        admission: Checker | None,
        certificates: Certificates[ServerContexts] | None,
        pool: Workers,
        lives: Callable[[], Sequence[WorkerStatus]],
    ) -> None:
        """Show `metrics`, `admission` and `certificates`, which the supervisor has for all workers.

        `lives` says how each worker is, in the order of their numbers.
        """
        self.handlers: dict[str, Handler] = {
            VARZ: self._varz,
            EXPVARS: self._expvars,
            FACTS: self._facts,
            PROBLEMS: self._problems,
            TRAFFIC: self._traffic,
        }
        self._config = config
        self._metrics = metrics
        self._admission = admission
        self._statuses = () if certificates is None else certificates.statuses
        self._pool = pool
        self._lives = lives
        self._age = Age()
        self._last: dict[int, Snapshot] = {}
        """Of each worker, what it said last."""
        self._ended: list[Snapshot] = []
        """At most one: all processes that others have taken the place of."""

    async def _varz(self, _: Json) -> Json:
        whole = await self._whole()
        return render(whole.metrics, whole.gauges, whole.stun, whole.names)

    async def _expvars(self, _: Json) -> Json:
        whole = await self._whole()
        return render_expvar(whole.metrics, whole.gauges, whole.stun, whole.names)

    async def _whole(self) -> Snapshot:
        """Return what all processes are together, those that have ended too."""
        await self._ask()
        lives = self._lives()
        snapshots, ended = [self._own(lives)], [*self._ended]
        for number, snapshot in self._last.items():
            # One that lives and is late is taken for what it was.
            if lives[number].alive and lives[number].pid == snapshot.pid:
                snapshots.append(snapshot)
            else:
                ended.append(retired(snapshot))
        return merge(snapshots, ended)

    async def _facts(self, _: Json) -> Json:
        snapshots = await self._ask()
        clients = sum(snapshot.members for snapshot in snapshots.values())
        return [
            *relay_facts(
                *(self._config, self._age, clients),
                sum(snapshot.gauges.queue_bytes for snapshot in snapshots.values()),
                sum(snapshot.gauges.queue_limit_bytes for snapshot in snapshots.values()),
            ),
            *self._worker_facts(snapshots),
            *certificate_facts(self._statuses),
            *admission_facts(self._admission),
        ]

    def _worker_facts(self, snapshots: Mapping[int, Snapshot]) -> Iterable[StatusRow]:
        for number, life in enumerate(self._lives()):
            snapshot = snapshots.get(number)
            state = _SILENT if life.alive else _RESTARTING
            if life.alive and snapshot is not None:
                state = f"{snapshot.members} clients, process {snapshot.pid}"
            yield f"Worker {number}", f"{state}, restarts: {life.restarts}"
            for what, value in () if snapshot is None else snapshot.links:
                yield f"{what} from worker {number}", value

    async def _problems(self, _: Json) -> Json:
        answers = await self._pool.each(CHECK)
        problems = []
        for number, life in enumerate(self._lives()):
            found = _problems_of(life, answers.get(number))
            problems += [f"worker {number}: {problem}" for problem in found]
        return [*problems, *admission_problems(self._admission)]

    async def _traffic(self, _: Json) -> Json:
        answers = await self._pool.each(TRAFFIC)
        return [
            # The same connection number may be given by several workers.
            [f"{number} {connection}", *rest]
            for number, traffic in answers.items()
            for connection, *rest in traffic
        ]

    async def _ask(self) -> dict[int, Snapshot]:
        """Ask all workers; return what those said who answered."""
        answers = await self._pool.each(SHARE)
        snapshots = {number: load(answer) for number, answer in answers.items()}
        for number, snapshot in snapshots.items():
            last = self._last.get(number)
            # Several may ask at once, and get their answers in any order.
            if last is not None and last.taken >= snapshot.taken:
                continue
            if last is not None and last.pid != snapshot.pid:
                self._ended = [merge([*self._ended, retired(last)])]
            self._last[number] = snapshot
        return snapshots

    def _own(self, lives: Sequence[WorkerStatus]) -> Snapshot:
        """Return the supervisor's own share, which stands for the relay."""
        gauges = Gauges(
            version=derp.__version__,
            started=self._age.started,
            uptime=self._age.seconds,
            tasks=tasks(),
            process=process.read(),
            clients_total=0,
            clients_local=0,
            clients_remote=0,
            watchers=0,
            dup_client_keys=0,
            dup_client_conns=0,
            total_dup_client_conns=0,
            serves_tls=self._config.serve_tls,
            certificates=[certificate(status) for status in self._statuses],
            rate_limit_bytes_per_second=None,
            rate_limit_burst_bytes=0,
            memory_at_start=self._age.memory,
            workers=sum(life.alive for life in lives),
            worker_restarts=sum(life.restarts for life in lives),
        )
        return Snapshot(
            pid=0,
            taken=0.0,
            metrics=self._metrics,
            gauges=gauges,
            stun=Stats(),
            names=BootstrapDNS(),
        )


def _problems_of(life: WorkerStatus, found: Sequence[str] | None) -> Sequence[str]:
    """Return what is wrong with a worker, which has `found` that itself, or has not answered."""
    if not life.alive:
        return [_RESTARTING]
    return [_SILENT] if found is None else found
