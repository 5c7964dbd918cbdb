"""What forbids a figure of workers, and which loads there are of them."""

import pytest

from bench import loads, workers


def extra(serving: float, processes: float) -> dict[str, float]:
    return {"serving": serving, "processes": processes, "across": 3.5}


def test_only_ours_is_told_how_many():
    assert workers.flags("ours", 2) == ("-workers", "2")
    assert workers.flags("theirs", 2) == ()


@pytest.mark.parametrize(
    ("relay", "count", "serving", "processes"),
    [("ours", 2, 2, 3), ("ours", 4, 4, 5), ("ours", 1, 1, 1), ("theirs", 2, 1, 1)],
)
def test_the_processes_asked_for_are_no_fault(relay, count, serving, processes):
    assert workers.faults(relay, count, extra(serving, processes)) == []


@pytest.mark.parametrize(
    ("relay", "count", "serving", "processes", "fault"),
    [
        ("ours", 2, 1.875, 3, "1.875 processes had clients, and should have been 2"),
        ("ours", 2, 2, 2.5, "2.5 processes, and should have been 3"),
        ("ours", 1, 1, 2, "2 processes, and should have been 1"),
        ("theirs", 2, 2, 1, "2 processes had clients, and should have been 1"),
    ],
)
def test_other_processes_are_a_fault(relay, count, serving, processes, fault):
    assert workers.faults(relay, count, extra(serving, processes)) == [fault]


@pytest.mark.parametrize(("account", "found"), [({"derper_workers": 2.0}, 2), ({}, 1)])
def test_a_relay_of_one_process_has_no_count_of_them(monkeypatch, account, found):
    monkeypatch.setattr(workers, "counters", lambda _relays, _trusted: [account])
    assert workers.living([], None) == found


def test_each_load_is_there_for_one_process_of_ours_too():
    both = {load.name: load for load in loads.LOADS if load.workers == 2}
    one = {load.name: load for load in loads.LOADS if load.workers == 1}
    assert {f"{name}-one" for name in both} == set(one)
    for name, load in both.items():
        assert load.arguments == one[f"{name}-one"].arguments
        assert load.arguments["pairs"] == "8"
    assert all(load.ours_only for load in one.values())
    assert not any(load.ours_only for load in both.values())


def test_figures_are_of_the_whole_relay():

    load = next(load for load in loads.LOADS if load.name == "workers-inflight")
    result = {
        "rate": 100_000.0,
        "lost_share": 0.0,
        "cpu_each": 7.0,
        "extra": {"pss": 90e6, "client_cores": 0.5, "across": 4.25},
    }
    found = {
        f"{figure.what}, {figure.unit}": figure.get(result) * figure.scale
        for figure in load.figures
    }
    assert found == {
        "arrive, k/s": pytest.approx(100),
        "arrive, MB/s": pytest.approx(140),
        "lost, %": 0,
        "CPU of all processes, each, µs": 7,
        "memory of all (PSS), MB": pytest.approx(90),
        "load's share of both cores, %": 25,
        "pairs across processes, of 8": 4.25,
    }
