"""What monitors are shown of a relay with workers."""

from typing import Any, cast

from derp.metrics import Metrics
from derp.metrics.keybytes import OTHER_KEYS
from derp.workers.monitoring import WorkerKeys, supervisor_backend, worker_handlers
from tests.workers.snapshots import gauges
from tests.workers.test_pages import Pool, answering, make, values

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def answers(pid: int, **found: tuple[int, int]) -> Any:
    keys = {"a": A, "b": B, "c": C, "other": OTHER_KEYS}
    return {
        "monitoring.keys": answering(
            {"pid": pid, "keys": [[keys[name].hex(), *both] for name, both in found.items()]}
        )
    }


def worker_keys(pool: Pool, most: int = 5) -> WorkerKeys:
    return WorkerKeys(cast("Any", pool), most)


async def test_a_key_at_two_workers_is_added_up() -> None:
    keys = worker_keys(Pool(answers(1, a=(1, 2), b=(5, 5)), answers(2, a=(10, 20), other=(7, 7))))
    for _ in range(2):
        found = await keys.totals()
        assert found == {A: (11, 22), B: (5, 5), OTHER_KEYS: (7, 7)}


async def test_a_worker_that_was_replaced_starts_from_zero_and_nothing_falls() -> None:
    pool = Pool(answers(1, a=(10, 10)))
    keys = worker_keys(pool)
    await keys.totals()
    pool.handlers[0] = None
    assert (await keys.totals())[A] == (10, 10)
    pool.handlers[0] = answers(2, a=(12, 3))
    assert (await keys.totals())[A] == (22, 13)
    assert keys._bytes.meters() == [(2, A)]


async def test_a_key_that_a_worker_has_dropped_is_forgotten() -> None:
    pool = Pool(answers(1, a=(10, 10)))
    keys = worker_keys(pool)
    await keys.totals()
    pool.handlers[0] = answers(1, b=(1, 1))
    await keys.totals()
    pool.handlers[0] = answers(1, a=(4, 4), b=(1, 1))
    assert await keys.totals() == {A: (14, 14), B: (1, 1), OTHER_KEYS: (0, 0)}


async def test_keys_are_bounded_for_all_workers_together() -> None:
    keys = worker_keys(Pool(answers(1, a=(1, 1)), answers(2, b=(2, 2), c=(4, 4))), most=1)
    assert await keys.totals() == {A: (1, 1), OTHER_KEYS: (6, 6)}


async def test_a_workers_answer() -> None:
    class Traffic:
        async def totals(self) -> dict[bytes, tuple[int, int]]:
            return {A: (1, 2), OTHER_KEYS: (3, 4)}

    pool = Pool(worker_handlers(cast("Any", Traffic())))
    assert await worker_keys(pool).totals() == {A: (1, 2), OTHER_KEYS: (3, 4)}


class Stopping(Pool):
    stopping = False


async def test_metrics_and_health_of_all() -> None:
    pool = Stopping(None, None)
    pool.says(0, metrics=Metrics(packets_sent=2), gauges=gauges(accepting_processes=1))
    pool.says(1, metrics=Metrics(packets_sent=3), gauges=gauges(accepting_processes=0))
    backend = supervisor_backend(make(pool), cast("Any", pool), 0)
    page = values(await backend.metrics())
    assert page["derp_packets_sent"] == 5
    assert page["derper_accepting_processes"] == 1
    found = await backend.health()
    assert (found.draining, found.processes, found.accepting) == (False, 2, True)
    pool.stopping = True
    found = await backend.health()
    assert (found.draining, found.accepting) == (True, False)
    pool.stopping = False
    for number in (0, 1):
        pool.dies(number, pid=pool.status[number].pid)
    assert (await backend.health()).trouble == "no worker"


async def test_keys_on_the_page() -> None:
    pool = Stopping(None)
    pool.says(0)
    pool.handlers[0] |= answers(1, a=(1, 2))
    page = await supervisor_backend(make(pool), cast("Any", pool), 3).metrics()
    assert f'\nderper_key_sent_bytes_total{{key="nodekey:{A.hex()}"}} 1\n' in page
