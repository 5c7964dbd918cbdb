"""Snapshots of several processes: sent as JSON, and merged into one of the whole relay. Sans-I/O.

How a figure is merged is declared where the figure is (derp.metrics.figures). Counters of ended
processes stay in the sum: a monitor takes a counter that falls for a restart of the relay.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from derp.http.liveview import StatusRow
from derp.metrics import Gauges, Histogram, Metrics, Process, figures
from derp.service.status import Snapshot


def merge(snapshots: Sequence[Snapshot], ended: Sequence[Snapshot] = ()) -> Snapshot:
    """Merge the snapshots of running processes, at least one, and of `ended` ones (see `final`).

    The first process stands for the relay: its version, start, network and certificates are shown.
    """
    processes = [*snapshots, *ended]
    counts: Counter[bytes] = Counter()
    for snapshot in snapshots:
        counts.update(snapshot.repeated)
    repeated = {key: count for key, count in counts.items() if count > 1}
    metrics = figures.merge([each.metrics for each in processes])
    gauges = figures.merge([each.gauges for each in processes])
    # Each process knows of all clients as soon as the others have told it.
    known = max(gauges.clients_local, gauges.clients_total)
    return Snapshot(
        pid=snapshots[0].pid,
        taken=snapshots[0].taken,
        metrics=attrs.evolve(metrics, average_queue_duration_ms=_average(snapshots)),
        gauges=attrs.evolve(
            gauges,
            clients_total=known,
            clients_remote=known - gauges.clients_local,
            current_dup_client_keys=len(repeated),
            current_dup_client_conns=sum(repeated.values()),
        ),
        repeated=repeated,
        links=[link for snapshot in snapshots for link in snapshot.links],
    )


def final(ended: Snapshot) -> Snapshot:
    """Return the snapshot of an ended process with its counters only: they stay in the sum."""
    metrics, gauges = figures.final(ended.metrics), figures.final(ended.gauges)
    return attrs.evolve(ended, metrics=metrics, gauges=gauges, repeated={}, links=())


def dump(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON has it; see `load`."""
    return {
        "pid": snapshot.pid,
        "taken": snapshot.taken,
        "metrics": {
            name: _dump(value)
            for name, value in attrs.asdict(snapshot.metrics, recurse=False).items()
        },
        # A worker's snapshot has no certificates; the supervisor's, which has them, is not sent.
        "gauges": attrs.asdict(
            snapshot.gauges, filter=lambda field, _: field.name != "certificates"
        ),
        "repeated": {key.hex(): count for key, count in snapshot.repeated.items()},
        "links": snapshot.links,
    }


def load(dumped: Mapping[str, Any]) -> Snapshot:
    """Undo `dump`, called in a process of the same version."""
    empty, process = Metrics(), dumped["gauges"]["process"]
    metrics = {
        name: _load(value, getattr(empty, name)) for name, value in dumped["metrics"].items()
    }
    if process is not None:
        process = Process(**process)
    return Snapshot(
        pid=dumped["pid"],
        taken=dumped["taken"],
        metrics=Metrics(**metrics),
        gauges=Gauges(**{**dumped["gauges"], "process": process}),
        repeated={bytes.fromhex(key): count for key, count in dumped["repeated"].items()},
        links=[StatusRow(*link) for link in dumped["links"]],
    )


def _average(snapshots: Sequence[Snapshot]) -> float:
    """Return the mean time of a packet in a queue, over all processes."""
    metrics = [snapshot.metrics for snapshot in snapshots]
    sent = sum(each.packets_sent for each in metrics)
    if not sent:
        return sum(each.average_queue_duration_ms for each in metrics) / len(metrics)
    return sum(each.average_queue_duration_ms * (each.packets_sent / sent) for each in metrics)


def _dump(value: Any) -> Any:
    """Return a number, a histogram or counts by label as JSON takes them."""
    if isinstance(value, Histogram):
        return {"counts": value.counts, "sum": value.sum}
    return list(value.items()) if isinstance(value, dict) else value


def _load(value: Any, empty: Any) -> Any:
    """Undo `_dump`; `empty` is the value at the start."""
    if isinstance(empty, Histogram):
        loaded = Histogram(*empty.bounds)
        loaded.counts, loaded.sum = [*value["counts"]], value["sum"]
        return loaded
    if isinstance(empty, dict):
        return {tuple(key) if isinstance(key, list) else key: count for key, count in value}
    return value
