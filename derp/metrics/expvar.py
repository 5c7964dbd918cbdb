"""The text of /debug/vars: JSON as Go's package expvar writes it. Sans-I/O.

An object with a line for each variable. The command line's arguments, maybe secret, are left out.
"""

import json
from collections.abc import Mapping
from typing import Any

from derp.metrics.counters import Metrics
from derp.metrics.figures import Histogram, Labelled, Untyped, Variable
from derp.metrics.gauges import Gauges
from derp.metrics.variables import variables


def render(metrics: Metrics, gauges: Gauges) -> str:
    """Return the whole page."""
    found = variables(metrics, gauges)
    values = {"cmdline": ["derper"], **{name: _json(value) for name, value in found.items()}}
    lines = [f"{json.dumps(name)}: {json.dumps(values[name])}" for name in sorted(values)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(variable: Variable) -> Any:
    match variable:
        case Untyped(value):
            return value
        case Labelled():
            return _by_label(variable.numbers)
        case Histogram():
            buckets = variable.cumulative()
            return {**dict(buckets), "sum": variable.sum, "count": buckets[-1][1]}
        case Mapping():
            return {name: _json(variable[name]) for name in sorted(variable)}
    return variable


def _by_label(numbers: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    """Return an object of numbers by the label's value, nested if there are more labels."""
    found: dict[str, Any] = {}
    for labels, number in sorted(numbers.items()):
        level = found
        for label in labels[:-1]:
            level = level.setdefault(label, {})
        level[labels[-1]] = number
    return found
