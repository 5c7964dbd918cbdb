"""What one process of the relay has counted, and how that goes to another one as JSON. Pure."""

import enum
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs

from derp.http.bootstrap_dns import BootstrapDNS
from derp.metrics import Gauges, Histogram, Metrics, Process
from stun.server import Stats


@attrs.frozen(kw_only=True)
class Snapshot:
    """What a process has counted since its start, and what it is like at one moment."""

    pid: int
    taken: float
    """That moment, in seconds, by a clock that all processes of the machine share."""
    metrics: Metrics
    gauges: Gauges
    """Certificates don't go along: one process has them all."""
    stun: Stats
    names: BootstrapDNS
    """Its counters; the names don't go along."""
    members: int = 0
    """Connections of logged-in clients."""
    repeated: Mapping[bytes, int] = attrs.field(factory=dict)
    """Keys that are connected more than once, perhaps to several processes, and how often here."""
    links: Sequence[tuple[str, str]] = ()
    """Names and values for /debug/, of the links to other relays."""


def dump(snapshot: Snapshot) -> dict[str, Any]:
    """Return what JSON can carry of a share; see `load`."""
    return {
        "pid": snapshot.pid,
        "taken": snapshot.taken,
        "metrics": {
            field.name: _dump(getattr(snapshot.metrics, field.name))
            for field in attrs.fields(Metrics)
        },
        "gauges": attrs.asdict(
            snapshot.gauges, filter=lambda field, _: field.name != "certificates"
        ),
        "stun": _counters(snapshot.stun),
        "names": _counters(snapshot.names),
        "members": snapshot.members,
        "repeated": {key.hex(): count for key, count in snapshot.repeated.items()},
        "links": [list(link) for link in snapshot.links],
    }


def load(found: Mapping[str, Any]) -> Snapshot:
    """Make a share of what `dump` has returned in a process of the same version."""
    metrics = Metrics()
    for field in attrs.fields(Metrics):
        empty = getattr(metrics, field.name)
        setattr(metrics, field.name, _load(found["metrics"][field.name], empty))
    gauges = dict(found["gauges"])
    if gauges["process"] is not None:
        gauges["process"] = Process(**gauges["process"])
    return Snapshot(
        pid=found["pid"],
        taken=found["taken"],
        metrics=metrics,
        gauges=Gauges(**gauges),
        stun=Stats(**found["stun"]),
        names=BootstrapDNS(**found["names"]),
        members=found["members"],
        repeated={bytes.fromhex(key): count for key, count in found["repeated"].items()},
        links=tuple((name, value) for name, value in found["links"]),
    )


def _counters(stats: Stats | BootstrapDNS) -> dict[str, int]:
    return {field.name: getattr(stats, field.name) for field in counters(type(stats))}


def counters(kind: type[Stats | BootstrapDNS]) -> "list[attrs.Attribute[int]]":
    """List what such stats count: what they can be made with."""
    return [field for field in attrs.fields(kind) if field.init]


def _dump(value: Any) -> Any:
    """Return a number, a histogram or a dict of counts as JSON has it."""
    if isinstance(value, Histogram):
        return {"counts": value.counts, "sum": value.sum}
    if isinstance(value, dict):
        return [[_plain(key), count] for key, count in value.items()]
    return value


def _load(value: Any, empty: Any) -> Any:
    """Undo `_dump`; `empty` is what such a thing is at the start."""
    if isinstance(empty, Histogram):
        loaded = Histogram(*empty.bounds)
        loaded.counts, loaded.sum = list(value["counts"]), value["sum"]
        return loaded
    if isinstance(empty, dict):
        known = {_plain(key): key for key in empty}
        keys = [(tuple(key) if isinstance(key, list) else key, count) for key, count in value]
        return {known.get(key, key): count for key, count in keys}
    return value


def _plain(key: Hashable) -> Hashable:
    if isinstance(key, tuple):
        return tuple(map(_plain, key))
    return key.value if isinstance(key, enum.Enum) else key
