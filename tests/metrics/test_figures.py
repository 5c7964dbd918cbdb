"""What is declared of a figure is all there is to say of it."""

from typing import Any

import attrs
import pytest

from derp.metrics import Gauges, Histogram, Metrics, Process
from derp.metrics.figures import (
    Labelled,
    counter,
    figure,
    figures,
    final,
    first,
    first_set,
    gauge,
    merge,
    part,
    total,
)
from derp.metrics.gauges import Certificate


@attrs.frozen(kw_only=True)
class Some:
    sold: int = counter()
    in_stock: int = gauge()
    lent: int = gauge("gauge_{}_now")
    price: int | None = gauge(default=None, merge=first_set)
    colours: dict[str, int] = counter(factory=dict)
    owner: str = figure(name="owner", merge=first)
    share: float = gauge(default=0.0, merge=None)


def test_a_name_follows_from_the_fields_or_is_said() -> None:
    names = {field: each.name for field, each in figures(Some).items()}
    assert names["sold"] == "derp.sold"
    assert names["in_stock"] == "derp.gauge_in_stock"
    assert names["lent"] == "gauge_lent_now"
    assert names["owner"] == "owner"


def test_one_is_made_of_several_by_the_declared_rules() -> None:
    one = Some(sold=1, in_stock=2, colours={"red": 1}, owner="a", share=0.5)
    two = Some(sold=10, in_stock=20, price=5, colours={"red": 1, "blue": 7}, owner="b", share=0.5)
    assert merge([one, two]) == Some(
        sold=11, in_stock=22, price=5, colours={"red": 2, "blue": 7}, owner="a"
    )


def test_counters_stay_and_gauges_end() -> None:
    ended = Some(sold=1, in_stock=2, lent=3, price=4, colours={"red": 1}, owner="a", share=0.5)
    assert final(ended) == Some(sold=1, colours={"red": 1}, owner="a")


@pytest.mark.parametrize("kind", [Metrics, Gauges, Process])
def test_every_field_is_a_figure(kind: Any) -> None:
    assert figures(kind).keys() == {field.name for field in attrs.fields(kind)}


def test_no_two_have_a_name_but_parts_of_a_family() -> None:
    seen: dict[str, str] = {}
    for kind in (Metrics, Gauges, Process, Certificate):
        for field, each in figures(kind).items():
            for name in filter(None, (each.name, each.also)):
                if name in seen:
                    assert isinstance(each.show(1), Labelled), (field, seen[name])
                seen[name] = field


def test_what_a_figure_needs_is_a_figure() -> None:
    known = {*figures(Metrics), *figures(Gauges)}
    needed = {each.needs for kind in (Metrics, Gauges) for each in figures(kind).values()}
    assert needed - {""} <= known


def test_histograms_are_added_cell_by_cell() -> None:
    one, two = Histogram(1, 2), Histogram(1, 2)
    for value in (0, 2, 9):
        one.observe(value)
    two.observe(2)
    added = total([one, two])
    assert (added.counts, added.sum, added.bounds) == ([1, 0, 2, 1], 13, (1, 2))
    assert one.counts == [1, 0, 1, 1]


def test_a_part_has_one_label() -> None:
    assert part("kind", "disco")(3) == Labelled(("kind",), {("disco",): 3})
