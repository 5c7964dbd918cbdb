"""The plots of the benchmark: where things are drawn, and that it is well-formed SVG."""

from xml.etree import ElementTree as ET

import pytest

from bench import loads, plot

SVG = "{http://www.w3.org/2000/svg}"


def drawings(results: dict) -> dict[str, ET.Element]:
    growth = loads.GROWTH
    return {name: ET.fromstring(text) for name, text in plot.sweeps(growth, results)}


def curves(drawing: ET.Element, relay: str) -> list[tuple[float, float]]:
    """Return the points of a relay's curve; its first line is the one of the key."""
    group = next(g for g in drawing.iter(f"{SVG}g") if g.get("class") == relay)
    _key, *lines = [p for p in group.iter(f"{SVG}polyline") if p.get("class") == "curve"]
    return [
        (float(x), float(y))
        for line in lines
        for x, y in (pair.split(",") for pair in line.attrib["points"].split())
    ]


def costs(*values: float) -> list[dict[str, float]]:
    return [{"cpu_each": value} for value in values]


def test_both_relays_are_in_one_plot_in_the_right_place():
    results = {
        "clients-100": {"theirs": costs(20, 10, 30), "ours": costs(10)},
        "clients-1000": {"theirs": costs(40), "ours": costs(20)},
        "clients-10000": {"theirs": costs(80), "ours": costs(40)},
    }
    found = drawings(results)
    assert list(found) == ["growth-clients.svg"]
    theirs, ours = (curves(found["growth-clients.svg"], name) for name in ("theirs", "ours"))
    assert len(theirs) == len(ours) == 3
    # Equal factors are equal distances, on both axes.
    assert theirs[1][0] - theirs[0][0] == pytest.approx(theirs[2][0] - theirs[1][0], abs=0.2)
    doubling = theirs[0][1] - theirs[1][1]
    assert doubling > 0
    assert theirs[1][1] - theirs[2][1] == pytest.approx(doubling, abs=0.2)
    assert [y for _, y in ours[1:]] == [y for _, y in theirs[:2]]


def test_the_range_of_the_rounds_is_drawn():
    results = {"size-64": {"ours": costs(4, 1, 2)}, "size-200": {"ours": costs(2)}}
    drawing = drawings(results)["growth-bytes.svg"]
    ranges = [p for p in drawing.iter(f"{SVG}polyline") if p.get("class") == "range"]
    assert len(ranges) == 1
    assert curves(drawing, "ours")[0][1] == curves(drawing, "ours")[1][1]


def test_it_can_be_read_without_eyes():
    results = {"destinations-1000": {"ours": costs(2.5), "theirs": costs(5)}}
    drawing = drawings(results)["growth-destinations.svg"]
    description = drawing.find(f"{SVG}desc")
    assert description is not None
    assert description.text == "Go derper: 5.00 µs at 1,000; this relay: 2.50 µs at 1,000"


def test_one_relay_alone_can_be_drawn():
    drawing = drawings({"size-64": {"ours": costs(4)}})["growth-bytes.svg"]
    assert len(curves(drawing, "ours")) == 1
    assert not curves(drawing, "theirs")


def test_without_results_nothing_is_drawn():
    assert drawings({}) == {}


def test_every_sweep_has_a_file_of_its_own():
    growth = loads.GROWTH
    found = drawings({load.name: {"ours": costs(1, 2)} for load in growth})
    assert len(found) == len({load.sweep for load in growth}) == 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 100, [1, 2, 5, 10, 20, 50, 100]),
        (40, 120, [40, 50, 70, 100]),
        (0.11, 0.9, [0.15, 0.2, 0.3, 0.4, 0.5, 0.7]),
    ],
)
def test_ticks_are_round_and_enough(low, high, expected):
    assert plot.Axis(low, high, 0, 100).ticks() == pytest.approx(expected)
