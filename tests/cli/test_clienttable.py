"""The table of clients: what its cells say, and that it is never wider than it may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.cli.clienttable import WIDTH, as_table, columns_of, duration, notes
from tests.cli.controlled import FIELDS

NOW = FIELDS["since"] + 90.0


def lines(*clients: dict[str, Any]) -> list[str]:
    return "".join(as_table([FIELDS | client for client in clients], (), NOW)).splitlines()


def test_nobody() -> None:
    assert lines() == ["no client is connected"]


def test_nobody_of_the_workers_that_answer() -> None:
    """The others may have clients."""
    missing = "workers 0, 1 and 3 did not answer, and their clients are missing\n"
    assert [*as_table([], [0, 1, 3], NOW)] == [missing]
    assert [*as_table([FIELDS], [0, 1, 3], NOW)][-1] == missing


def test_all_columns() -> None:
    head, one, other, _ = lines(
        {
            "key": f"nodekey:{'12' * 32}",
            "label": "a label that is long",
            "remote": "[2001:db8:1234:5678:9abc:def0:1234:5678]:41641",
            "since": 0,
            "sent": 999_949_000,
            "received": 1,
            "queued_bytes": 12_345,
            "limit": 1_250_000,
            "home": True,
            "duplicate": True,
        },
        {"mesh": True},
    )
    assert head.split() == [
        "key",
        "label",
        "address",
        "since",
        "sent",
        "received",
        "queued",
        "limit",
    ]
    assert "121212121212 a label tha… 2001:db8:" in one
    assert one.endswith(" 1.00 GB      1 B 12.3 kB 10 Mbit/s home,twice")
    assert other.split() == f"{'ab' * 6} 192.0.2.1 1m 30s 0 B 0 B mesh".split()
    # A column begins where its head does.
    assert one.index("12.3 kB") + len("12.3 kB") == head.index("queued") + len("queued")


def test_a_chinese_label_takes_two_columns_a_character() -> None:
    head, one, other, _ = lines({"label": "打印机"}, {"label": "printer"})
    assert one[: one.index("192")].count(" ") == 1 + 1 + 1
    assert columns_of(one[: one.index("192")]) == other.index("192") == head.index("address")
    assert " 办公室的打… " in lines({"label": "办公室的打印机"})[1]


def test_what_nobody_has_takes_no_room() -> None:
    head, _, end = lines({})
    assert head.split() == ["key", "address", "since", "sent", "received"]
    assert end == "1 client, 0 B to them, 0 B from them"


numbers = st.integers(0, 10**18)
clients = st.fixed_dictionaries(
    {
        "label": st.text(st.sampled_from("aZ9 [打印机ß"), max_size=64),
        "remote": st.sampled_from(
            ["1.2.3.4:5", "[::1]:5", "[2001:db8:1234:5678:9abc:def0:1234:5678]:41641"]
        ),
        "since": st.integers(0, int(NOW)),
        "sent": numbers,
        "received": numbers,
        "queued_bytes": st.integers(0, 2 << 20),
        "limit": st.none() | st.integers(1000, 125 * 10**9),
        "home": st.booleans(),
        "duplicate": st.booleans(),
        "mesh": st.booleans(),
        "quota": st.just(1),
        "used_day": st.none() | st.integers(0, 2),
    }
)


@given(st.lists(clients, min_size=1, max_size=5))
def test_it_fits_whatever_is_in_it(found: list[dict[str, Any]]) -> None:
    table = lines(*found)
    assert max(map(columns_of, table)) <= WIDTH
    assert len(table) == len(found) + 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3_599, "59m 59s"),
        (3_600, "1h 0m"),
        (90_000, "1d 1h"),
        (86_400 * 400, "400d 0h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"quota": 5, "quota_period": "day", "used_day": 5}, "over quota"),
        ({"quota": 5, "quota_period": "month", "used_day": 5, "used_month": 4}, ""),
        ({"quota": 5, "quota_period": "month", "used_month": 6}, "over quota"),
        ({"quota": 5, "quota_period": "day"}, ""),
        ({"home": True, "mesh": True}, "home,mesh"),
    ],
)
def test_notes(changes: dict[str, Any], text: str) -> None:
    assert notes(FIELDS | changes) == text
