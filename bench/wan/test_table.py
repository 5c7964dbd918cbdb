"""The table, the verdicts, and what is said against a figure."""

import pytest

from bench.wan import table


def result(goodput=50.0, p50=40.0, p99=80.0, lost=0.0, late=0.0, busy=0.5, refused=0):
    return {
        "goodput_mbit": goodput,
        "idle": {"p50_ms": 40.0},
        "loaded": {"p50_ms": p50, "p99_ms": p99, "lost_share": lost},
        "relay_drops": {"queue_head": 20, "write_error": 1},
        "cpu_s_per_gb": 5.0,
        "machine_busy": busy,
        "emulator": {"late_share": late, "latest_ms": 1.0, "refused": refused},
    }


def said(**relays):
    results = {"a case": {name: [result(**given)] for name, given in relays.items()}}
    return table.verdicts(results, "ours", "older", "derper")


def test_rows_have_medians_and_spreads():
    results = {"a case": {"ours": [result(40), result(60), result(50)], "derper": [result()]}}
    _, ours, theirs = table.rows(results)
    assert ours[:3] == ("a case", "ours", "50.0 ±10.0")
    assert theirs == ("", "derper", "50.0", "40.0", "40.0", "80.0", "0", "21.0", "5.00", "50.0 %")


def test_what_never_came_is_infinite():
    one = table.rows({"a case": {"ours": [result(p99=None)]}})[1]
    assert one[5] == "∞"
    two = table.rows({"a case": {"ours": [result(p99=None), result(), result()]}})[1]
    assert two[5] == "80.0 ±∞"


def test_goals_are_met_within_the_tolerance():
    assert said(ours={"goodput": 48.0, "p99": 85.0}, older={}, derper={}) == [
        "goal, goodput at least as with older: met in 1 of 1 cases",
        "goal, ping under load no worse than with derper: met in 1 of 1 cases",
    ]


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (
            {"goodput": 47.0},
            "MISSED (goodput 47.0 against 50.0 Mbit/s), goodput at least as with older: a case",
        ),
        ({"p50": 45.0}, "MISSED (p50 45.0 against 40.0 ms), ping under load no worse than with"),
        ({"p99": 87.0}, "MISSED (p99 87.0 against 80.0 ms), ping under load no worse than with"),
        ({"p99": None}, "MISSED (p99 ∞ against 80.0 ms), ping under load no worse than with"),
        ({"lost": 0.01}, "MISSED (lost 1.00 against 0 %), ping under load no worse than with"),
    ],
)
def test_a_missed_goal_says_by_how_much(ours, line):
    lines = said(ours=ours, older={}, derper={})
    (missed,) = (one for one in lines if not one.startswith("goal"))
    assert missed.startswith(line)
    assert sum("met in 0 of 1" in one for one in lines) == 1


def test_rounds_that_overlap_are_unclear():
    def judged(*ours):
        relays = {
            "ours": [result(goodput) for goodput in ours],
            "older": [result(50), result(40), result(60)],
        }
        lines = table.verdicts({"a case": relays}, "ours", "older", "derper")
        return lines[-1].split(" ")[0]

    assert judged(30, 42, 42) == "unclear"
    assert judged(30, 35, 39) == "MISSED"
    # One round has no range.
    assert judged(42) == "MISSED"


def test_what_was_not_measured_is_not_compared():
    assert said(ours={}, another={}) == []
    assert said(ours={"p99": None}, derper={"p99": None})[0].endswith("met in 1 of 1 cases")


def test_doubts_are_said():
    good = {"a case": {"ours": [result()]}}
    assert table.doubts(good) == []
    for given, words in (
        ({"late": 0.02}, "2.0% of the packets were late"),
        ({"busy": 0.97}, "the machine was 97% busy"),
        ({"refused": 3}, "did not take 3 packets"),
    ):
        (line,) = table.doubts({"a case": {"ours": [result(**given)]}})
        assert words in line
