"""The text of /metrics: Prometheus' exposition format, with HELP and TYPE for all. Sans-I/O.

Names and labels are those of /debug/varz, which leaves HELP out, and TYPE where the Go derper does.
"""

from collections.abc import Iterator

import attrs

from derp.metrics.counters import Metrics
from derp.metrics.figures import Figure, Histogram, Labelled, Variable
from derp.metrics.gauges import Gauges
from derp.metrics.variables import shown
from derp.metrics.varz import samples, typed


@attrs.frozen
class Family:
    """All series of one name."""

    help: str
    kind: str
    variable: Variable


def render(metrics: Metrics, gauges: Gauges) -> str:
    """Return the whole page."""
    found = families(metrics, gauges)
    return "".join(f"{line}\n" for name in sorted(found) for line in _lines(name, found[name]))


def families(metrics: Metrics, gauges: Gauges) -> dict[str, Family]:
    """Return the figures that are shown, by their names."""
    found: dict[str, Family] = {}
    for path, figure, variable in shown(metrics, gauges):
        if isinstance(variable, str):
            if path != "version":
                continue  # the same text once more
            variable = _info(variable)  # noqa: PLW2901
        name = "_".join(typed(level)[1] for level in path.split("."))
        if name in found and isinstance(variable, Labelled):
            variable = _joined(found[name].variable, variable)  # noqa: PLW2901
        found[name] = Family(figure.help, _kind(path, figure, variable), variable)
    return found


def _info(version: str) -> Labelled:
    return Labelled(("version", "binary"), {(version, "derper"): 1})


def _joined(first: Variable, second: Labelled) -> Labelled:
    numbers = first.numbers if isinstance(first, Labelled) else {}
    return attrs.evolve(second, numbers={**numbers, **second.numbers})


def _kind(path: str, figure: Figure, variable: Variable) -> str:
    if isinstance(variable, Histogram):
        return "histogram"
    return typed(path.rpartition(".")[2])[0] or figure.kind


def _lines(name: str, family: Family) -> Iterator[str]:
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    yield from samples(name, family.variable)
