"""All figures as a tree of names and values, as the Go derper has them in package expvar. Sans-I/O.

The prefix `counter_` or `gauge_` of a name is its Prometheus type. Names and types are those of
cmd/derper with tsweb/varz, for existing dashboards, without those of a Go runtime: go_*, memstats.
This relay adds derp_connection_ends, by the reason in the log, and what begins with derper_, but
for the Go derper's derper_tls_*.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from derp.metrics.counters import Metrics
from derp.metrics.figures import Figure, Labelled, Variable, Variables, figures, labelled
from derp.metrics.gauges import Certificate, Gauges, Process


def variables(metrics: Metrics, gauges: Gauges) -> Variables:
    """Return the tree of the figures that are shown."""
    tree: dict[str, Any] = {}
    for path, _, variable in shown(metrics, gauges):
        _insert(tree, path, variable)
    return tree


def shown(metrics: Metrics, gauges: Gauges) -> Iterator[tuple[str, Figure, Variable]]:
    """Yield the path, declaration and variable of each figure that has a value.

    Those whose `needs` is not set are left out. A path comes several times where each variable has
    other labels.
    """
    objects: list[Metrics | Gauges | Process] = [metrics, gauges]
    if gauges.process is not None:
        objects.append(gauges.process)
    for each in objects:
        for field, figure in figures(type(each)).items():
            value = getattr(each, field)
            if value is not None and _is_set(figure.needs, metrics, gauges):
                for path in filter(None, (figure.name, figure.also)):
                    yield path, figure, figure.show(value)
    if gauges.certificates:
        yield from _certificates(gauges.certificates)


def _is_set(needed: str, metrics: Metrics, gauges: Gauges) -> bool:
    """Return whether the figure `needed` is set: not None, False or {}; True if none is needed."""
    if not needed:
        return True
    value = getattr(gauges if hasattr(gauges, needed) else metrics, needed)
    return value is not None and value is not False and value != {}


def _insert(tree: dict[str, Any], name: str, variable: Variable) -> None:
    *levels, last = name.split(".")
    for level in levels:
        tree = tree.setdefault(level, {})
    if isinstance(variable, Labelled) and last in tree:
        variable = attrs.evolve(variable, numbers={**tree[last].numbers, **variable.numbers})
    tree[last] = variable


def _certificates(certificates: Sequence[Certificate]) -> Iterator[tuple[str, Figure, Variable]]:
    for field, figure in figures(Certificate).items():
        if field != "failure":
            numbers = {each.name: getattr(each, field) for each in certificates}
            yield figure.name, figure, labelled("name")(numbers)
        elif reasons := {(each.name, each.failure): 1.0 for each in certificates if each.failure}:
            yield figure.name, figure, labelled("name", "reason")(reasons)
