"""Snapshots to merge, of any figures."""

from typing import Any

import attrs
from hypothesis import strategies as st

from derp.http.liveview import StatusRow
from derp.metrics import DropReason, Gauges, Histogram, Metrics, Process
from derp.metrics.figures import figures, total
from derp.service.status import Snapshot

PROCESS = Process(
    open_fds=12,
    max_fds=20000,
    cpu_seconds=1.25,
    resident_bytes=1000,
    virtual_bytes=5000,
    virtual_max_bytes=2**64 - 1,
    started=100.5,
    booted=50,
    received_bytes=7,
    transmitted_bytes=8,
)

COUNTS = st.integers(0, 2**40)
COUNTED = [name for name, figure in figures(Gauges).items() if figure.merge is total]
"""The gauges that are added up."""
LABELS = st.sampled_from(["1.2", "1.3", "10ms", "closed", "inf", "allowed"])


def gauges(**changes: Any) -> Gauges:
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "started": 100.75,
        "uptime": 9.5,
        "tasks": 20,
        "process": PROCESS,
        "clients_total": 5,
        "clients_local": 3,
        "clients_remote": 2,
        "watchers": 1,
        "total_dup_client_conns": 4,
        "serves_tls": True,
        "memory_at_start": 900,
        "queue_bytes": 3 << 20,
        "queue_limit_bytes": 32 << 20,
    }
    return Gauges(**(fields | changes))


def snapshot(metrics: Metrics | None = None, **changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "pid": 7,
        "taken": 1.5,
        "metrics": metrics or Metrics(),
        "gauges": gauges(),
    }
    return Snapshot(**(fields | changes))


def any_value(empty: Any) -> st.SearchStrategy[Any]:
    """Draw what may stand in a field of Metrics that is `empty` at the start."""
    if isinstance(empty, Histogram):
        return st.lists(st.integers(0, 2000), max_size=5).map(lambda seen: observed(empty, seen))
    if isinstance(empty, dict):
        keys = st.sampled_from(list(empty)) if empty else LABELS
        if empty and isinstance(next(iter(empty)), tuple):
            keys = st.tuples(st.sampled_from(list(DropReason)), st.booleans())
        return st.dictionaries(keys, COUNTS).map(lambda counts: empty | counts)
    if isinstance(empty, float):
        return st.floats(0, 1000)
    return COUNTS


def observed(empty: Histogram, seen: list[int]) -> Histogram:
    histogram = Histogram(*empty.bounds)
    for value in seen:
        histogram.observe(value)
    return histogram


@st.composite
def any_metrics(draw: st.DrawFn) -> Metrics:
    metrics = Metrics()
    for field in attrs.fields(Metrics):
        drawn = draw(any_value(getattr(metrics, field.name)))
        setattr(metrics, field.name, drawn)
    # Its keys are not to be guessed from an empty one.
    metrics.admissions = draw(st.dictionaries(st.tuples(LABELS, LABELS), COUNTS))
    return metrics


@st.composite
def any_snapshot(draw: st.DrawFn) -> Snapshot:
    local, remote = draw(COUNTS), draw(COUNTS)
    repeated = draw(st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(2, 9)))
    processes = st.builds(
        Process,
        **{field.name: COUNTS for field in attrs.fields(Process) if field.type is int},
        cpu_seconds=st.floats(0, 1e9),
        started=st.floats(0, 1e10),
        received_bytes=st.none() | COUNTS,
        transmitted_bytes=st.none() | COUNTS,
    )
    return Snapshot(
        pid=draw(COUNTS),
        taken=draw(st.floats(0, 1e9)),
        metrics=draw(any_metrics()),
        gauges=gauges(
            **{name: draw(COUNTS) for name in COUNTED if name != "clients_local"},
            process=draw(st.none() | processes),
            clients_total=local + remote,
            clients_local=local,
            clients_remote=remote,
            current_dup_client_keys=len(repeated),
            current_dup_client_conns=sum(repeated.values()),
            serves_tls=draw(st.booleans()),
            rate_limit_per_client_bytes_per_second=draw(st.none() | COUNTS),
            rate_limit_per_client_burst_bytes=draw(st.none() | COUNTS),
        ),
        repeated=repeated,
        links=draw(st.lists(st.builds(StatusRow, st.text(), st.text(), st.text()), max_size=3)),
    )
