"""What `derper accounts` prints."""

import csv
import json

from derp.accounts import report
from derp.accounts.counts import OTHER, Counts

KEY = bytes(range(32))
ROWS = [(KEY, Counts(1_500_000, 999, 3, 4, 5_400_000)), (OTHER, Counts(0, 1, 0, 1, 499))]
NAME = f"nodekey:{KEY.hex()}"


def test_csv() -> None:
    first, *rows = csv.reader(report.as_csv(ROWS, "key"))
    assert first == ["key", "sent", "received", "packets_sent", "packets_received", "seconds"]
    assert rows == [[NAME, "1500000", "999", "3", "4", "5400"], ["other", "0", "1", "0", "1", "0"]]


def test_json() -> None:
    one, other = map(json.loads, report.as_json(ROWS, "key"))
    assert one == {
        "key": NAME,
        "sent": 1_500_000,
        "received": 999,
        "packets_sent": 3,
        "packets_received": 4,
        "seconds": 5400,
    }
    assert other["key"] == "other"


def test_table() -> None:
    lines = list(report.as_table(ROWS, "key"))
    assert [line.split() for line in lines] == [
        ["key", "sent", "received", "packets", "packets", "connected"],
        ["to", "it", "from", "it", "to", "it", "from", "it", "hours"],
        [NAME, "1.50", "MB", "999", "B", "3", "4", "1.5"],
        ["other", "0", "B", "1", "B", "0", "1", "0.0"],
        ["all", "1.50", "MB", "1.00", "kB", "3", "5", "1.5"],
    ]
    assert len({len(line) for line in lines}) == 1
    by_day = list(report.as_table([("2026-12-01", Counts(10**18 + 1))], "day"))
    assert by_day[2].split()[:3] == ["2026-12-01", "1.00", "EB"]
