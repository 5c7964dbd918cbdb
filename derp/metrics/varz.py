"""The text of /debug/varz: Prometheus' exposition format, as the Go derper writes it. Sans-I/O.

Metrics have a TYPE line where the Go derper's have one, and labels that were never counted (as of
a TLS version) are absent. The order is the Go derper's: first the metrics of Prometheus' collector,
then all others by name without type; but within a level of the tree by name with type.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from derp.metrics.counters import Metrics
from derp.metrics.figures import Histogram, Labelled, Untyped, Variable
from derp.metrics.gauges import Gauges
from derp.metrics.variables import variables

_PREFIXES: Final = ("counter", "gauge")
_COLLECTOR: Final = ("counter_process_", "gauge_process_")
"""Metrics that in the Go derper are Prometheus' collector's, not expvar's."""


def render(metrics: Metrics, gauges: Gauges) -> str:
    """Return the whole page."""
    tree = variables(metrics, gauges)
    names = sorted(tree, key=lambda name: (not name.startswith(_COLLECTOR), typed(name)[1]))
    return "".join(f"{line}\n" for name in names for line in _lines("", name, tree[name]))


def typed(name: str) -> tuple[str, str]:
    """Split a name into its type, maybe empty, and the rest."""
    prefix, _, rest = name.partition("_")
    return (prefix, rest) if prefix in _PREFIXES else ("", name)


def _lines(before: str, name: str, variable: Variable) -> Iterator[str]:
    """Yield the lines of a variable, of the level whose names begin with `before`."""
    kind, rest = typed(name)
    name = before + rest
    match variable:
        case str():
            if name == "version":
                yield f'version{{version="{_escaped(variable)}",binary="derper"}} 1'
        case Mapping():
            for inner in sorted(variable):
                yield from _lines(f"{name}_", inner, variable[inner])
        case _:
            if kind := _type(kind, variable):
                yield f"# TYPE {name} {kind}"
            yield from samples(name, variable)


def _type(prefix: str, variable: Variable) -> str:
    """Return the type that the Go derper shows; empty for none."""
    match variable:
        case Untyped():
            return ""
        case Labelled():
            return prefix or variable.kind
        case Histogram():
            return "histogram"
    return prefix or "counter"


def samples(name: str, variable: Variable) -> Iterator[str]:
    """Yield the lines of a variable's samples, under its name without type."""
    match variable:
        case Untyped(value):
            yield f"{name} {value}"
        case Labelled():
            yield from _labelled(name, variable)
        case Histogram():
            yield from _histogram(name, variable)
        case _:
            yield f"{name} {variable}"


def _labelled(name: str, family: Labelled) -> Iterator[str]:
    for values, number in sorted(family.numbers.items()):
        pairs = zip(family.labels, values, strict=True)
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
        yield f"{name}{{{labels}}} {number}"


def _histogram(name: str, histogram: Histogram) -> Iterator[str]:
    buckets = histogram.cumulative()
    for bound, count in buckets:
        yield f'{name}_bucket{{le="{bound}"}} {count}'
    yield f"{name}_sum {histogram.sum}"
    yield f"{name}_count {buckets[-1][1]}"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
