"""Which loads there are, and which are chosen."""

import pytest

from bench import run
from bench.loads import GROWTH, LOADS

QUEUES = {load.name for load in LOADS if load.group == "queues"}


def chosen(*arguments: str) -> set[str]:
    return {load.name for load in run.choose(run.parse(arguments))}


def test_names_are_names_of_one_load_or_group():
    names = [load.name for load in (*LOADS, *GROWTH)]
    assert len(set(names)) == len(names)
    assert not run.GROUPS & set(names)


def test_a_group_is_chosen_by_its_name():
    assert len(QUEUES) > 1
    assert chosen("--only", "queues") == QUEUES
    assert chosen("--only", "queues", "--only", "rtt") == QUEUES | {"rtt"}
    assert chosen("--skip", "queues") == chosen() - QUEUES


def test_one_load_is_chosen_by_its_name():
    assert chosen("--only", "trickle") == {"trickle"}
    assert "trickle" not in chosen("--skip", "trickle")


def test_no_group_is_no_name():
    with pytest.raises(SystemExit):
        run.parse(["--only", ""])


def test_the_quick_form_has_other_values_for_arguments_that_there_are():
    for load in LOADS:
        more = set(load.quick) - set(load.arguments)
        assert more <= {"warmup", "seconds", "settle", "trial", "budget", "grain"}


def test_both_relays_get_the_flags_of_a_load(monkeypatch: pytest.MonkeyPatch, tmp_path):
    seen = []
    monkeypatch.setattr(run, "running", lambda *_args, more, **_kwargs: seen.append(more))
    for load in LOADS:
        if load.flags:
            for name in ("ours", "theirs"):
                run.start(run.Program(name, ["x"], tmp_path), load, (0,), tmp_path)
            assert seen == [load.flags] * 2
            seen.clear()
