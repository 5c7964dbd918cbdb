"""The arithmetic and the verdicts of the benchmark's table."""

import pytest

from bench import loads, report


def result(rate: float, lost: float = 0.0) -> dict[str, float]:
    return {
        "rate": rate,
        "cpu_each": 1e6 / rate,
        "lost_share": lost,
        "server_cpu": 1.0,
        "client_busy": 0.5,
        "others": 0.0,
    }


def table(name: str, theirs: list, ours: list) -> dict[str, tuple[str, ...]]:
    for results in (theirs, ours):
        for number, one in enumerate(results):
            one.setdefault("round", number)
    chosen = [load for load in loads.LOADS if load.name == name]
    rows = report.rows(chosen, {name: {"theirs": theirs, "ours": ours}})
    return {row[1]: row for row in rows[1:]}


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    theirs = [result(100_000), result(50_000), result(100_000)]
    ours = [result(400_000), result(400_000), result(500_000)]
    row = table("best-1400", theirs, ours)["best rate, k/s"]
    assert row[2:6] == ("100 ±25.0", "400 ±50.0", "5.00", "≥ 4 met")


def test_only_rounds_that_both_have_are_compared():
    theirs = [result(100_000) | {"round": 2}]
    ours = [result(900_000) | {"round": 1}, result(500_000) | {"round": 2}]
    assert table("best-1400", theirs, ours)["best rate, k/s"][4] == "5.00"


def test_less_is_better_where_it_is():
    row = table("cpu-100k", [with_latency(100_000)], [with_latency(200_000)])["CPU each, µs"]
    assert row[2:6] == ("10.0", "5.00", "0.50", "≤ 0.6 met")
    row = table("cpu-100k", [with_latency(100_000)], [with_latency(150_000)])["CPU each, µs"]
    assert row[4:6] == ("0.67", "≤ 0.6 MISSED")


def with_latency(rate: float) -> dict:
    return result(rate) | {"latency": {"p50": 1.0, "p99": 2.0}}


def test_a_limit_is_held_against_ours_alone():
    rows = table("inflight", [result(1, lost=0.9)], [result(1, lost=0.0005)])
    assert rows["lost, %"][5] == "≤ 0.1 % met"
    rows = table("inflight", [result(1, lost=0.9)], [result(1, lost=0.0015)])
    assert rows["lost, %"][5] == "≤ 0.1 % MISSED"


def test_what_is_missing_is_not_judged():
    row = table("best-1400", [], [result(400_000)])["best rate, k/s"]
    assert row[2:6] == ("-", "400", "-", "≥ 4")


def test_others_are_named():
    results = {"rtt": {"ours": [result(1) | {"others": 0.25}, result(1)], "theirs": [result(1)]}}
    assert report.disturbances(results, 0.02) == "rtt ours 25%"


def test_every_load_has_a_name_of_its_own():
    names = [load.name for load in loads.LOADS]
    assert len(set(names)) == len(names)


ABOUT = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef0123",
    "changed_files": 0,
    "machine": "a machine, 2 cores, x86_64",
    "kernel": "6.1",
    "congestion_control": "cubic",
    "quick": False,
    "rounds": 5,
    "theirs": "1.102.5",
    "ours": "trio-derper 0.1.0",
    "trio": "0.35.0",
    "command": "python3 noxfile.py -s bench",
}


def page(text: str, **more: object) -> str:
    theirs, ours = ([result(rate) | {"round": 1}] for rate in (100_000, 400_000))
    document = {"about": ABOUT, "results": {"best-1400": {"theirs": theirs, "ours": ours}}}
    document |= {"failures": [], "remarks": []} | more
    return report.into(text, document, loads.LOADS)


def test_only_what_stands_between_the_marks_is_replaced():
    before = "# Speed\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nthe end\n"
    once = page(before)
    assert once.startswith("# Speed\n\n<!-- bench -->\n\n| load")
    assert once.endswith("\n\n<!-- /bench -->\n\nthe end\n")
    assert "old" not in once
    assert page(once) == once


def test_a_page_says_where_its_figures_come_from():
    text = page("<!-- bench --><!-- /bench -->")
    head, _, first, second, _, *origin = text.splitlines()[2:-2]
    assert head.split("|")[3:6] == [" Go derper ", " this relay ", " ratio "]
    assert [cell.strip() for cell in first.split("|")[2:6]] == [
        "best rate, k/s",
        "100",
        "400",
        "4.00",
    ]
    assert "CPU each" in second
    assert origin == [
        "Medians of up to 5 rounds, ± half of the range; 2026-01-02, commit 0123456789ab.",
        "This relay: trio-derper 0.1.0, Trio 0.35.0.",
        "Go derper: 1.102.5.",
        "Machine: a machine, 2 cores, x86_64, Linux 6.1, TCP cubic; a core each, or both for both.",
        "Made by `python3 noxfile.py -s bench`.",
    ]


def test_a_page_says_what_went_wrong():
    text = page("<!-- bench --><!-- /bench -->", failures=["a"], remarks=["b"])
    assert text.endswith("\n\n- a\n- b\n\n<!-- /bench -->")


@pytest.mark.parametrize(
    "text", ["", "<!-- bench -->", "<!-- /bench -->", "<!-- /bench --> <!-- bench -->"]
)
def test_a_page_without_marks_is_left_alone(text):
    with pytest.raises(ValueError, match="want a line <!-- bench -->"):
        report.around_marks(text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "python3 noxfile.py -s bench"),
        (["--theirs", "/x/derper"], "python3 noxfile.py -s bench"),
        (["--theirs=/x", "--json=/y", "--json", "/z"], "python3 noxfile.py -s bench"),
        (["--growth", "--plots", "docs"], "python3 noxfile.py -s bench -- --growth --plots docs"),
        (["--only", "a b"], "python3 noxfile.py -s bench -- --only 'a b'"),
    ],
)
def test_the_command_is_one_that_others_can_run(arguments, expected):
    assert report.command(arguments) == expected
