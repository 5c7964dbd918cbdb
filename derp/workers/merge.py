"""Of each process's share, the figures of the whole relay. Pure.

Counters are added, those of processes that have ended too: whoever watches a counter takes it for
started anew when it falls. Most gauges are added as well; what the processes have in common is that
of the first one.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import attrs

from derp.http.bootstrap_dns import BootstrapDNS
from derp.metrics import Gauges, Histogram, Metrics, Process
from derp.workers.snapshot import Snapshot, counters
from stun.server import Stats

GAUGES: Final = frozenset(
    {
        "current_connections",
        "current_home_connections",
        "current_notideal_connections",
        "pending_bytes",
        "pending_connections",
        "tls_active",
    }
)
"""Those of the Metrics that fall as well, and end with their process."""

_AVERAGE: Final = "average_queue_duration_ms"


def merge(snapshots: Sequence[Snapshot], ended: Sequence[Snapshot] = ()) -> Snapshot:
    """Return what the processes of `snapshots` are together, after those that have `ended`.

    The first one stands for the relay: its version, start, network and certificates are shown.
    There has to be one. Those of `ended` are made by `retired`.
    """
    everybody = [*snapshots, *ended]
    repeated: Counter[bytes] = Counter()
    for snapshot in snapshots:
        repeated.update(snapshot.repeated)
    several = {key: count for key, count in repeated.items() if count > 1}
    return Snapshot(
        pid=snapshots[0].pid,
        taken=snapshots[0].taken,
        metrics=_add_metrics([snapshot.metrics for snapshot in everybody], _average(snapshots)),
        gauges=_add_gauges([snapshot.gauges for snapshot in everybody], several.values()),
        stun=Stats(**_add_counters(Stats, [snapshot.stun for snapshot in everybody])),
        names=BootstrapDNS(
            **_add_counters(BootstrapDNS, [snapshot.names for snapshot in everybody])
        ),
        members=sum(snapshot.members for snapshot in snapshots),
        repeated=several,
        links=[link for snapshot in snapshots for link in snapshot.links],
    )


def retired(snapshot: Snapshot) -> Snapshot:
    """Return what is left of a process that has ended: what it had counted."""
    metrics = _add_metrics([snapshot.metrics], 0.0)
    for name in GAUGES:
        value = getattr(metrics, name)
        setattr(metrics, name, dict.fromkeys(value, 0) if isinstance(value, dict) else 0)
    process = snapshot.gauges.process
    if process is not None:
        process = attrs.evolve(process, open_fds=0, max_fds=0, resident_bytes=0, virtual_bytes=0)
    gauges = attrs.evolve(
        snapshot.gauges,
        tasks=0,
        process=process,
        clients_total=0,
        clients_local=0,
        clients_remote=0,
        watchers=0,
        dup_client_keys=0,
        dup_client_conns=0,
        rate_limit_bytes_per_second=None,
        memory_at_start=0,
        queue_bytes=0,
        queue_limit_bytes=0,
    )
    return attrs.evolve(snapshot, metrics=metrics, gauges=gauges, members=0, repeated={}, links=())


def _average(snapshots: Sequence[Snapshot]) -> float:
    """Return the time in queues of a packet, whichever process has sent it."""
    sent = sum(snapshot.metrics.packets_sent for snapshot in snapshots)
    weights = [snapshot.metrics.packets_sent / sent if sent else 0.0 for snapshot in snapshots]
    if not sent:
        weights = [1 / len(snapshots)] * len(snapshots)
    times = [snapshot.metrics.average_queue_duration_ms for snapshot in snapshots]
    return sum(time * weight for time, weight in zip(times, weights, strict=True))


def _add_metrics(metrics: Sequence[Metrics], average: float) -> Metrics:
    total = Metrics()
    for field in attrs.fields(Metrics):
        if field.name != _AVERAGE:
            setattr(total, field.name, _add([getattr(each, field.name) for each in metrics]))
    setattr(total, _AVERAGE, average)
    return total


def _add(values: Sequence[Any]) -> int | Histogram | dict[Any, int]:
    """Add counts, histograms of the same bounds, or counts by label."""
    first = values[0]
    if isinstance(first, Histogram):
        histogram = Histogram(*first.bounds)
        histogram.counts = [
            sum(cells) for cells in zip(*(each.counts for each in values), strict=True)
        ]
        histogram.sum = sum(each.sum for each in values)
        return histogram
    if isinstance(first, dict):
        counts: dict[Any, int] = {}
        for each in values:
            for label, count in each.items():
                counts[label] = counts.get(label, 0) + count
        return counts
    if isinstance(first, int):
        total: int = sum(values)
        return total
    raise TypeError(f"no rule for adding {first!r}")


def _add_counters(
    kind: type[Stats | BootstrapDNS], stats: Sequence[Stats | BootstrapDNS]
) -> dict[str, int]:
    names = [field.name for field in counters(kind)]
    return {name: sum(getattr(each, name) for each in stats) for name in names}


def _add_gauges(gauges: Sequence[Gauges], repeated: Collection[int]) -> Gauges:
    """Add gauges; `repeated` is how often the keys are connected that are so more than once."""
    first = gauges[0]
    limit = next((each for each in gauges if each.rate_limit_bytes_per_second is not None), first)
    local = sum(each.clients_local for each in gauges)
    # Each process knows of all clients, as soon as the others have told it.
    known = max(local, *(each.clients_total for each in gauges))
    return Gauges(
        version=first.version,
        started=first.started,
        uptime=first.uptime,
        tasks=sum(each.tasks for each in gauges),
        process=_add_processes([each.process for each in gauges if each.process is not None]),
        clients_total=known,
        clients_local=local,
        clients_remote=known - local,
        watchers=sum(each.watchers for each in gauges),
        dup_client_keys=len(repeated),
        dup_client_conns=sum(repeated),
        total_dup_client_conns=sum(each.total_dup_client_conns for each in gauges),
        serves_tls=first.serves_tls,
        certificates=first.certificates,
        rate_limit_bytes_per_second=limit.rate_limit_bytes_per_second,
        rate_limit_burst_bytes=limit.rate_limit_burst_bytes,
        memory_at_start=sum(each.memory_at_start for each in gauges),
        queue_bytes=sum(each.queue_bytes for each in gauges),
        queue_limit_bytes=sum(each.queue_limit_bytes for each in gauges),
        workers=first.workers,
        worker_restarts=first.worker_restarts,
    )


def _add_processes(processes: Sequence[Process]) -> Process | None:
    """Add what processes take; the network figures are those of the machine."""
    if not processes:
        return None
    return attrs.evolve(
        processes[0],
        open_fds=sum(each.open_fds for each in processes),
        max_fds=sum(each.max_fds for each in processes),
        cpu_seconds=sum(each.cpu_seconds for each in processes),
        resident_bytes=sum(each.resident_bytes for each in processes),
        virtual_bytes=sum(each.virtual_bytes for each in processes),
        virtual_max_bytes=min(each.virtual_max_bytes for each in processes),
    )
