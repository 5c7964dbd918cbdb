"""The declaration of figures: each is an attrs field, with a Figure in its metadata. Sans-I/O.

    queue_bytes: int = gauge("gauge_derper_queue_bytes", help="Bytes in send queues.")

Loops over these fields show them on the pages (`derp.metrics.variables`), and merge the objects of
several processes into one (`merge`, `final`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

T = TypeVar("T", bound=attrs.AttrsInstance)


class Histogram:
    """A count of the observations of each whole number.

    Counts are kept by number, and put into buckets only when rendered. The hot path may inline the
    two lines of `observe`.
    """

    __slots__ = ("bounds", "counts", "limit", "sum")

    def __init__(self, *bounds: int) -> None:
        self.bounds = bounds
        self.limit = bounds[-1]
        self.counts = [0] * (self.limit + 2)
        self.sum = 0

    def observe(self, value: int) -> None:
        """Count `value`, at least 0; the last cell is for all that exceed the last bound."""
        self.counts[value if value <= self.limit else -1] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return the buckets as Prometheus has them: (upper bound, observations up to it)."""
        buckets = [(str(bound), sum(self.counts[: bound + 1])) for bound in self.bounds]
        return [*buckets, ("+Inf", sum(self.counts))]


@attrs.frozen
class Untyped:
    """A number without a Prometheus type (Go: expvar.Func)."""

    value: float


@attrs.frozen
class Labelled:
    """Numbers told apart by labels (Go: metrics.LabelMap; metrics.MultiLabelMap)."""

    labels: tuple[str, ...]
    numbers: Mapping[tuple[str, ...], float]
    """By the values of the labels."""
    kind: str = ""
    """The Prometheus type, where the name does not say it; empty for none."""


Variable: TypeAlias = "float | str | Untyped | Labelled | Histogram | Variables"
"""A number is a counter, unless its name says otherwise; of texts, varz shows only the version."""
Variables: TypeAlias = Mapping[str, Variable]
"""One level of the tree: variables by name, in any order."""


def total(values: Sequence[Any]) -> Any:
    """Add numbers, counts by label, or histograms of the same bounds."""
    if isinstance(values[0], Histogram):
        histogram = Histogram(*values[0].bounds)
        histogram.counts = [sum(cells) for cells in zip(*(v.counts for v in values), strict=True)]
        histogram.sum = sum(each.sum for each in values)
        return histogram
    if isinstance(values[0], dict):
        counts: dict[Any, int] = {}
        for each in values:
            for label, count in each.items():
                counts[label] = counts.get(label, 0) + count
        return counts
    return sum(values)


def first(values: Sequence[Any]) -> Any:
    """Return the first process's value, which stands for all."""
    return values[0]


def first_set(values: Sequence[Any]) -> Any:
    """Return the value of the first process that has one."""
    return next((value for value in values if value is not None), None)


def unchanged(value: Any) -> Any:
    """Return `value` as it is."""
    return value


@attrs.frozen(kw_only=True)
class Figure:
    """The declaration of one figure."""

    name: str
    """The variable's path in the tree, with dots; "{}" stands for the field's name. Empty for a
    figure that is not shown by itself."""
    help: str = ""
    """What it counts or measures, with its unit, as one line; empty only where `name` is."""
    kind: str = ""
    """The Prometheus type where neither the name's prefix nor the variable says it."""
    also: str = ""
    """Another such path; empty for none."""
    show: Callable[[Any], Variable] = unchanged
    """Returns the variable for a value."""
    needs: str = ""
    """The figure without which this one is not shown."""
    merge: Callable[[Sequence[Any]], Any] | None = total
    """Merges the values of several processes into one; None where that takes other values, too."""
    final: Callable[[Any], Any] = unchanged
    """Returns what stays of the last value after the end of the process."""


_METADATA: Final = "figure"


def figure(*, default: Any = attrs.NOTHING, factory: Any = None, **declared: Any) -> Any:
    """Make a figure's field, with its value at the start and the fields of Figure."""
    metadata = {_METADATA: Figure(**declared)}
    return attrs.field(default=default, factory=factory, metadata=metadata)


def counter(name: str = "derp.{}", *, default: Any = 0, **declared: Any) -> Any:
    """Make a field that only grows, is added up, and stays when its process ends."""
    default = attrs.NOTHING if "factory" in declared else default
    return figure(**{"name": name, "default": default, "kind": "counter", **declared})


def gauge(name: str = "derp.gauge_{}", *, default: Any = 0, **declared: Any) -> Any:
    """Make a field that is added up, and is `default` again when its process ends."""
    fixed = {"name": name, "default": default, "kind": "gauge", "final": lambda _: default}
    return figure(**{**fixed, **declared})


def figures(kind: type[attrs.AttrsInstance]) -> dict[str, Figure]:
    """Return the figures that a class declares, by field name, with full variable names."""
    found: dict[str, Figure] = {}
    for field in attrs.fields(kind):
        if (declared := field.metadata.get(_METADATA)) is not None:
            found[field.name] = attrs.evolve(declared, name=declared.name.format(field.name))
    return found


def labelled(*labels: str, kind: str = "") -> Callable[[Mapping[Any, float]], Labelled]:
    """Return the `show` of counts by the values of `labels`; a bool is "disco" or "other"."""

    def text(key: Any) -> tuple[str, ...]:
        parts: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
        return tuple({True: "disco", False: "other"}.get(part, part) for part in parts)

    return lambda counts: Labelled(labels, {text(key): n for key, n in counts.items()}, kind)


def part(label: str, value: str) -> Callable[[float], Labelled]:
    """Return the `show` of one value of a label; fields of the same name have the other values."""
    return lambda number: Labelled((label,), {(value,): number})


def merge(objects: Sequence[T]) -> T:
    """Merge `objects`, at least one, into one; figures without a `merge` keep their default."""
    kind = type(objects[0])
    rules = {name: each.merge for name, each in figures(kind).items() if each.merge is not None}
    return kind(
        **{name: rule([getattr(each, name) for each in objects]) for name, rule in rules.items()}
    )


def final(ended: T) -> T:
    """Return the figures that stay of a process that has ended."""
    kind = type(ended)
    fields = figures(kind).items()
    return kind(**{name: figure.final(getattr(ended, name)) for name, figure in fields})
