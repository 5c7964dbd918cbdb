"""The pages for monitors of a relay with workers: shown by the supervisor, about all workers."""

import os
from typing import Final

import trio

from derp.http.monitoring import Health, MonitoringBackend
from derp.metrics import render_metrics
from derp.metrics.keybytes import KeyBytes
from derp.service.keytraffic import KeyTraffic
from derp.service.monitorpages import health_of, with_keys
from derp.workers.pages import SupervisorPages
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Handler, Json

_KEYS: Final = "monitoring.keys"


def worker_handlers(traffic: KeyTraffic) -> dict[str, Handler]:
    """Return the handler of the supervisor's question for the bytes by key."""

    async def keys(_: Json) -> Json:
        found = await traffic.totals()
        return {"pid": os.getpid(), "keys": [[key.hex(), *both] for key, both in found.items()]}

    return {_KEYS: keys}


def supervisor_backend(
    pages: SupervisorPages, pool: WorkerPool, max_keys: int
) -> MonitoringBackend:
    """Return the pages of a relay with workers; `max_keys` as in -metrics-per-key."""
    keys = WorkerKeys(pool, max_keys) if max_keys else None

    async def metrics() -> str:
        totals = None if keys is None else await keys.totals()
        merged = await pages.merged()
        return render_metrics(merged.metrics, with_keys(merged.gauges, totals))

    async def health() -> Health:
        merged = await pages.merged()
        return health_of(
            merged.gauges.certificates,
            processes=merged.gauges.workers or 0,
            accepting=merged.gauges.accepting_processes > 0,
            draining=pool.stopping,
        )

    return MonitoringBackend(metrics=metrics, health=health)


class WorkerKeys:
    """The bytes of all workers' clients by key; a meter is a key at one process of a worker."""

    def __init__(self, pool: WorkerPool, most: int) -> None:
        """Have a series each for at most `most` keys."""
        self._pool = pool
        self._bytes = KeyBytes(most)
        self._meters: dict[int, set[tuple[int, bytes]]] = {}
        """Those in each worker's last answer: the process ID, and the key."""

    async def totals(self) -> dict[bytes, tuple[int, int]]:
        """Ask all workers; return the bytes sent and received by key, see KeyBytes."""
        answers = await self._pool.call_all(_KEYS)
        now = trio.current_time()
        for number, answer in answers.items():
            meters = set()
            for text, sent, received in answer["keys"]:
                meter = answer["pid"], bytes.fromhex(text)
                self._bytes.observe(meter, meter[1], sent, received, now)
                meters.add(meter)
            for meter in self._meters.get(number, set()) - meters:
                self._bytes.forget(meter)
            self._meters[number] = meters
        return self._bytes.totals()
