"""The command line, and the page that comes of a document."""

import json

import pytest

from bench.servers import BenchError
from bench.wan import run
from bench.wan.cases import CASES, QUICK
from bench.wan.test_table import result

DOCUMENT = {
    "about": {
        "rounds": 2,
        "seconds": 8.0,
        "buffer_ms": None,
        "seed": 7,
        "date": "2026-12-01T00:00:00",
        "commit": "0123456789abcdef",
        "changed_files": 1,
        "machine": "a machine",
        "kernel": "6.1",
        "relays": {"ours": "0.1.0"},
    },
    "results": {"a case": {"ours": [result()]}},
    "verdicts": ["goal, something: met in 1 of 1 cases"],
    "failures": ["round 1, another case, ours: FAILED: why"],
}


def test_without_anything_all_cases_of_both_relays():
    options = run.parse([])
    assert options.cases == list(CASES)
    assert list(options.relays) == ["ours", "derper"]


def test_quick_and_patterns_add_up():
    options = run.parse(["--quick", "--case", "tun-4ms-10mbit-loss0-bbr-x1"])
    assert len(options.cases) == len(QUICK) + 1


def test_relays_are_commands():
    options = run.parse(["--relay", "one=a 'b c' --d=e", "--relay", "two=f"])
    assert options.relays == {"one": ["a", "b c", "--d=e"], "two": ["f"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--relay", "derper"], "want NAME=COMMAND"),
        (["--relay", "=derper"], "want NAME=COMMAND"),
        (["--relay", "one="], "want NAME=COMMAND"),
        (["--relay", "one=a", "--relay", "one=b"], "there are two of that name"),
        (["--case", "no-such"], "no case is named no-such"),
        (["--into", "/nonexistent"], "/nonexistent"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit):
        run.parse(arguments)
    assert words in capsys.readouterr().err


def test_cases_that_the_kernel_lacks_are_left_out_aloud(monkeypatch, tmp_path, capsys):
    available = tmp_path / "available"
    available.write_text("reno cubic\n")
    monkeypatch.setattr(run, "AVAILABLE", available)
    kept, lines = run.with_congestion_control(CASES)
    assert {case.congestion for case in kept} == {"cubic"}
    assert lines == ["left out, for this kernel has no bbr: all cases with it"]
    assert lines[0] in capsys.readouterr().err
    with pytest.raises(BenchError, match="no case is left"):
        run.with_congestion_control([case for case in CASES if case.congestion == "bbr"])


def test_a_document_goes_into_a_page(tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write_text(json.dumps(DOCUMENT))
    page.write_text("before\n<!-- wan -->\nold\n<!-- /wan -->\nafter\n")
    assert run.act(run.parse(["--table", str(results), "--into", str(page)])) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- wan -->\n")
    assert text.endswith("<!-- /wan -->\nafter\n")
    assert "old" not in text
    for words in (
        "| a case | ours  | 50.0",
        "- goal, something: met in 1 of 1 cases",
        "- round 1, another case, ours: FAILED: why",
        "Medians of 2 rounds",
        "commit 0123456789ab with 1 changed files",
        "losses are those of seed 7",
    ):
        assert words in text


def test_a_case_that_fails_leaves_the_others_their_figures(monkeypatch, tmp_path, capsys):
    def tried(case, command, binaries, ca, folder, options, number):
        if command == ["b"] and number == 1:
            raise BenchError("no way to the node\nits log")
        return result()

    monkeypatch.setattr(run, "tried", tried)
    written = tmp_path / "found.json"
    options = run.parse(
        ["--relay", "one=a", "--relay", "two=b", "--rounds", "2", "--json", str(written)]
    )
    assert run.measure_all(options, options.cases[:1], ["left out"], {}) == 1
    document = json.loads(written.read_text())
    (by_relay,) = document["results"].values()
    assert {name: [each["round"] for each in found] for name, found in by_relay.items()} == {
        "one": [1, 2],
        "two": [2],
    }
    where = f"round 1, {options.cases[0].name}, two"
    assert document["failures"] == ["left out", f"{where}: FAILED: no way to the node"]
    assert f"results in {written}" in capsys.readouterr().out
