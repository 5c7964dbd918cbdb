"""The plots: marks in the right place, in well-formed SVG."""

from xml.etree import ElementTree as ET

import pytest

from bench.wan import plot
from bench.wan.test_table import result

SVG = "{http://www.w3.org/2000/svg}"


def drawn(results, name="wan-goodput.svg"):
    return ET.fromstring(dict(plot.drawings(results))[name])


def marks(drawing, style):
    """The places across, one a case; the first mark is that of the key."""
    group = next(g for g in drawing.iter(f"{SVG}g") if g.get("class") == style)
    found = [e for e in group.iter() if e.get("class") == "mark"]
    return [float(e.get("cx") or float(e.get("x") or 0) + 4) for e in found[1:]]


def test_equal_factors_are_equal_distances():
    results = {
        "one": {"a": [result(10), result(20), result(90)], "b": [result(10)]},
        "two": {"a": [result(40)], "b": [result(20)]},
    }
    drawing = drawn(results)
    ours, theirs = marks(drawing, "ours"), marks(drawing, "theirs")
    assert theirs[1] == ours[0]
    assert ours[1] - ours[0] == pytest.approx(theirs[1] - theirs[0], abs=0.2)


def test_what_is_infinite_is_left_out():
    results = {"one": {"a": [result(p99=None)], "b": [result(p99=70.0)], "c": [result()]}}
    drawing = drawn(results, "wan-ping.svg")
    assert drawing.find(f"{SVG}desc").text == "one: b 70.0 ms, c 80.0 ms"
    assert dict(plot.drawings({"one": {"a": [result(p99=None)]}})).keys() == {"wan-goodput.svg"}


def test_a_third_relay_has_a_mark_of_its_own():
    drawing = drawn({"one": {"a": [result()], "b": [result()], "c": [result()]}})
    assert len(list(drawing.iter(f"{SVG}polygon"))) == 2


def test_without_results_nothing_is_drawn():
    assert not list(plot.drawings({}))
