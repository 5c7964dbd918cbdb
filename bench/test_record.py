"""A run of a benchmark: its exit code, its results and failures, the file that they go into."""

import json
import re
import signal

import pytest

from bench import record
from bench.record import Record
from bench.servers import BenchError, resolved


@pytest.fixture
def handled(monkeypatch):
    """The signals that are handled, though not in the process of the tests."""
    found = {}
    monkeypatch.setattr(record.signal, "signal", found.__setitem__)
    return found


def test_signals_unwind_what_was_begun(handled):
    assert record.exit_code("bench", lambda: 0) == 0
    assert handled == dict.fromkeys((signal.SIGTERM, signal.SIGINT), signal.default_int_handler)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BenchError("no such core"), 1, "bench: no such core\n"),
        (KeyboardInterrupt(), 130, "bench: interrupted\n"),
    ],
)
def test_what_is_expected_is_one_line(handled, capsys, error, code, line):
    def act():
        raise error

    assert record.exit_code("bench", act, BenchError) == code
    assert capsys.readouterr().err == line


def test_a_bug_is_not_hidden(handled):
    with pytest.raises(ZeroDivisionError):
        record.exit_code("bench", lambda: 1 // 0, BenchError)


def test_results_have_the_order_of_the_relays_and_no_empty_place():
    found = Record(["theirs", "ours", "mirror"])
    found.add("a load", "ours", 1, {"rate": 2})
    found.add("a load", "theirs", 1, {"rate": 1})
    found.add("a load", "ours", 2, {"rate": 3})
    assert list(found.results["a load"].items()) == [
        ("theirs", [{"rate": 1, "round": 1}]),
        ("ours", [{"rate": 2, "round": 1}, {"rate": 3, "round": 2}]),
    ]


def test_a_failure_is_kept_as_one_line_and_shown_whole(tmp_path, capsys):
    found = Record(["ours"], ["left out"])
    found.fail("round 1, a load, ours", BenchError("lost\nlast words"))
    found.fail("round 2, a load, ours", BenchError())
    document = found.document({"rounds": 2}, remarks=["not alone"])
    assert document["failures"] == [
        "left out",
        "round 1, a load, ours: FAILED: lost",
        "round 2, a load, ours: FAILED: BenchError()",
    ]
    assert "last words" in capsys.readouterr().err
    path = record.save(document, tmp_path / "a" / "b.json")
    assert json.loads(path.read_text())["about"].keys() == {"rounds", "load_before", "took_seconds"}
    assert json.loads(path.read_text())["remarks"] == ["not alone"]
    assert record.end(document, path) == 1
    assert capsys.readouterr().out == f"0 s; results in {path}\n"


def test_a_run_without_failures_goes_into_a_new_file(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    document = Record(["ours"]).document({})
    path = record.save(document, None, "wan-")
    assert re.fullmatch(r"wan-\d{8}-\d{6}\.json", path.name)
    assert record.end(document, path) == 0


def test_a_command_becomes_a_path():
    (path, *rest) = resolved("--ours ", ["sh", "-c", "true"])
    assert path.startswith("/")
    assert rest == ["-c", "true"]
    with pytest.raises(BenchError, match=r"^--ours no-such-program: there is no such program$"):
        resolved("--ours ", ["no-such-program"])
    with pytest.raises(BenchError, match="no such program"):
        resolved("--ours ", [])
