"""The events: whoever does as they say, as live.js does, sees what the page would show."""

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from derp.http.liveevents import NOTHING, ROWS_PER_EVENT, Viewer, busy
from derp.http.liveview import SORTS, View
from tests.http.lively import any_view, client, view


@attrs.define
class Browser:
    """The page as the events make it."""

    texts: dict[str, str] = attrs.field(factory=dict)
    points: dict[str, str] = attrs.field(factory=dict)
    status: dict[str, Any] = attrs.field(factory=dict)
    rows: dict[str, Any] = attrs.field(factory=dict)
    order: list[str] = attrs.field(factory=list)

    def take(self, event: bytes) -> None:
        if event == NOTHING:
            return
        # As the standard has it: an event is its lines, of which ours has one.
        assert event.endswith(b"\n\n")
        (line,) = event[:-2].splitlines()
        field, _, data = line.partition(b": ")
        assert field == b"data"
        message = json.loads(data)
        assert message.keys() <= {"texts", "points", "status", "rows", "order"}
        self.texts |= message.get("texts", {})
        self.points |= message.get("points", {})
        self.status |= message.get("status", {})
        self.rows |= {name: (key, cells) for name, key, cells in message.get("rows", [])}
        if (order := message.get("order")) is not None:
            self.order = order
            self.rows = {name: row for name, row in self.rows.items() if name in order}

    def shows(self, view: View, sort: str) -> bool:
        rows = view.rows[sort]
        expected = {row.id: (row.key, [[*cell] for cell in row.cells]) for row in rows}
        return (
            self.texts == view.texts
            and self.points == view.points
            and self.status
            == {name: [[*line] for line in each] for name, each in view.status.items()}
            and self.rows == expected
            and self.order == [row.id for row in rows]
        )


@given(st.lists(any_view(), min_size=1, max_size=4), st.sampled_from(list(SORTS)))
def test_whoever_follows_them_sees_the_page(views: list[View], sort: str) -> None:
    viewer, browser = Viewer(sort), Browser()
    for each in views:
        for event in viewer.events(each):
            browser.take(event)
        assert browser.shows(each, sort)
        # Nothing has changed since.
        assert [*viewer.events(each)] == [NOTHING]


def test_no_event_has_many_rows() -> None:
    many = [client(str(number)) for number in range(2 * ROWS_PER_EVENT + 1)]
    viewer, browser = Viewer("name"), Browser()
    events = [*viewer.events(view(many))]
    assert len(events) == 3
    for event in events:
        assert event.count(b"nodekey:") <= ROWS_PER_EVENT
        browser.take(event)
    assert browser.shows(view(many), "name")


def test_only_what_has_changed_is_sent() -> None:
    viewer = Viewer("name")
    before = [client("a"), client("b"), client("c")]
    list(viewer.events(view(before)))
    changed = attrs.evolve(before[1], cells=[("new", ""), *before[1].cells[1:]])
    (event,) = viewer.events(view([before[0], changed, before[2]]))
    assert json.loads(event.removeprefix(b"data: ")) == {
        "rows": [[changed.id, changed.key, [[*cell] for cell in changed.cells]]]
    }
    (event,) = viewer.events(view(before[:1]))
    message = json.loads(event.removeprefix(b"data: "))
    assert message == {"texts": {"clients": "1"}, "order": [before[0].id]}
    (event,) = viewer.events(view([]))
    assert json.loads(event.removeprefix(b"data: "))["order"] == []


def test_one_for_whom_there_is_no_room_is_told() -> None:
    assert busy("8 others look") == b"event: busy\ndata: 8 others look\n\n"
