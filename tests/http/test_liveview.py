import pytest
from hypothesis import given

from derp.http.liveview import (
    CHART_HEIGHT,
    MAX_ROWS,
    SORTS,
    StatusRow,
    View,
    age_text,
    chart_width,
)
from derp.metrics.history import SPANS, Past
from tests.http.lively import any_view, client, view


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 min"),
        (59, "0 min"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (10**7, "115 d 17 h"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_the_rates_now_are_those_of_the_last_second() -> None:
    minute = Past(7, ((1, 1), (125, 250)))
    shown = view(pasts=[minute, Past(0), Past(0)])
    assert (shown.texts["from"], shown.texts["to"]) == ("1.00 kbit/s", "2.00 kbit/s")
    assert shown.texts["minute-peak"] == "up to 2.00 kbit/s"
    assert shown.texts["hour-peak"] == "nothing yet"


def test_a_chart_ends_at_the_right_edge_and_has_its_peak_at_the_top() -> None:
    shown = view(pasts=[Past(9, ((0, 0), (50, 0), (25, 100))), Past(0), Past(0)])
    assert shown.points["minute-from"] == "570,100 580,100 590,50 600,75"
    assert shown.points["minute-to"] == "570,100 570,100 580,100 590,100 600,0 600,100"
    assert shown.points["hour-from"] == shown.points["hour-to"] == ""


@given(any_view())
def test_no_chart_leaves_its_box(shown: View) -> None:
    for span in SPANS:
        for line in ("from", "to"):
            for point in shown.points[f"{span.name}-{line}"].split():
                x, y = map(int, point.split(","))
                assert 0 <= x <= chart_width(span.steps)
                assert 0 <= y <= CHART_HEIGHT


def test_orders() -> None:
    clients = [
        client("b", total=1, rate=3.0, since=10),
        client("A", total=2, rate=1.0, since=30),
        client("c", total=3, rate=2.0, since=20),
    ]
    shown = view(clients)
    found = {sort: "".join(row.cells[0][0] for row in shown.rows[sort]) for sort in SORTS}
    assert found == {"total": "cAb", "now": "bcA", "name": "Abc", "newest": "Acb"}


def test_of_too_many_the_first_are_shown() -> None:
    clients = [client(str(number), total=number) for number in range(MAX_ROWS + 1)]
    shown = view(clients)
    assert [row.cells[0][0] for row in shown.rows["total"]] == [
        str(number) for number in range(MAX_ROWS, 0, -1)
    ]
    assert shown.texts["clients"] == f"{MAX_ROWS + 1}"
    assert shown.texts["shown"] == f"{MAX_ROWS} of {MAX_ROWS + 1} are shown"
    assert view(clients[1:]).texts["shown"] == ""


def test_a_worker_that_does_not_answer_is_named() -> None:
    missing = "worker 1 did not answer, and its clients are missing"
    few = view([client("a")], silent=[1])
    assert (few.texts["clients"], few.texts["shown"]) == ("1+", missing)
    many = view([client(str(number)) for number in range(MAX_ROWS + 1)], silent=[1])
    assert many.texts["shown"] == f"{MAX_ROWS} of {MAX_ROWS + 1} are shown; {missing}"


def test_status_goes_into_its_sections() -> None:
    rows = [StatusRow("a", "1"), StatusRow("b", "2", "Mesh"), StatusRow("c", "3")]
    shown = view(status=rows)
    assert shown.status["Relay"] == [("a", "1"), ("c", "3")]
    assert shown.status["Mesh"] == [("b", "2")]
    assert shown.status["Workers"] == []
