"""Views of a relay for the tests of the live page."""

from collections.abc import Sequence
from typing import Any

import attrs
from hypothesis import strategies as st

from derp.http.liveview import (
    COLUMNS,
    SECTIONS,
    SORTS,
    ClientRow,
    SortKeys,
    StatusRow,
    View,
    first_of,
    make_view,
)
from derp.metrics.history import SPANS, Past

# What HTML, JSON and event streams each have a meaning for.
TEXT = st.text(st.sampled_from("ab<>&\"'\n\r:\\\u2028\u202e\x00é"), max_size=6)


@attrs.frozen(kw_only=True)
class Lively(ClientRow):
    """A row, with what decides its place."""

    name: str
    total: int
    rate: float
    since: int

    def sort_keys(self, number: int) -> SortKeys:
        return SortKeys(number, self.id, self.name, self.total, self.rate, self.since)


def client(name: str, **changes: Any) -> Lively:
    fields: dict[str, Any] = {
        "id": f"id of {name}",
        "key": f"nodekey:{name.encode().hex():0>64}",
        "name": name,
        "total": 0,
        "rate": 0.0,
        "since": 0,
        "cells": [(name, ""), *[("1", "2")] * (len(COLUMNS) - 1)],
    }
    return Lively(**(fields | changes))


def view(
    clients: Sequence[Lively] = (),
    status: Sequence[StatusRow] = (StatusRow("Version", "1.0"),),
    pasts: Sequence[Past] = (Past(0),) * len(SPANS),
    waiting: int = 0,
    silent: Sequence[int] = (),
) -> View:
    listed = [row.sort_keys(number) for number, row in enumerate(clients)]
    rows: dict[str, list[Lively]] = {}
    for sort in SORTS:
        *_, first = first_of(listed, sort)
        rows[sort] = [clients[one.number] for one in first]
    return make_view(
        rows,
        count=len(clients),
        at_home=0,
        waiting=waiting,
        silent=silent,
        pasts=pasts,
        status=status,
    )


@st.composite
def any_view(draw: st.DrawFn) -> View:
    numbers = draw(st.lists(st.integers(0, 9), unique=True, max_size=6))
    cell = st.tuples(TEXT, TEXT)
    clients = [
        attrs.evolve(
            client(str(number), total=draw(st.integers(0, 3))),
            name=draw(TEXT),
            cells=tuple(draw(cell) for _ in COLUMNS),
        )
        for number in numbers
    ]
    status = draw(st.lists(st.builds(StatusRow, TEXT, TEXT, st.sampled_from(SECTIONS)), max_size=4))
    rates = st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))
    pasts = [Past(100, tuple(draw(st.lists(rates, max_size=min(3, span.steps))))) for span in SPANS]
    return view(clients, status, pasts, draw(st.integers(0, 10**12)))
