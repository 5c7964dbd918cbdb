"""The figures of several processes, added up."""

import re
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from derp.metrics import DropReason, Gauges, Metrics, Process, render_varz
from derp.service.status import Snapshot
from derp.workers.merge import final, merge
from tests.support.examples import examples
from tests.workers.snapshots import COUNTED, PROCESS, any_snapshot, gauges, snapshot

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def page(shown: Snapshot) -> str:
    return render_varz(shown.metrics, shown.gauges)


def values(shown: Snapshot) -> dict[str, float]:
    """Read the page as Prometheus would: name and labels to value."""
    lines = [line for line in page(shown).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def counted(shown: Snapshot) -> dict[str, float]:
    """Those of the values that are counters, or belong to histograms."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(shown), re.MULTILINE))
    return {
        name: value
        for name, value in values(shown).items()
        if kinds.get(re.sub(r"\{.*|_(bucket|sum|count)\b.*", "", name)) in {"counter", "histogram"}
        or name.startswith("derper_tls_request")
    }


def a_metrics(number: int) -> Metrics:
    """Make metrics in which each figure is `number`, and each label there is has been counted."""
    metrics = Metrics()
    for field in attrs.fields(Metrics):
        value = getattr(metrics, field.name)
        if isinstance(value, int):
            setattr(metrics, field.name, number)
        elif isinstance(value, float):
            setattr(metrics, field.name, float(number))
        elif isinstance(value, dict):
            value.setdefault(("url", "ok") if field.name == "admissions" else "label", 0)
            if field.name.endswith("_dropped"):
                del value["label"]
            value.update(dict.fromkeys(value, number))
        else:
            for _ in range(number):
                value.observe(2)
    return metrics


@given(any_snapshot())
def test_of_one_it_is_the_same(one: Snapshot) -> None:
    whole = merge([one])
    assert page(whole) == page(one)
    assert list(whole.links) == list(one.links)


def full(one: Snapshot) -> Snapshot:
    """Show all that depends on something else; the network's figures are not added."""
    one.metrics.admission_verdicts.setdefault("allowed", 0)
    process = attrs.evolve(
        one.gauges.process or PROCESS, received_bytes=None, transmitted_bytes=None
    )
    counted = {name: getattr(one.gauges, name) for name in COUNTED}
    limit = {"rate_limit_per_client_bytes_per_second": 1}
    return attrs.evolve(one, gauges=gauges(**counted, **limit, process=process, uptime=0.0))


FULL = any_snapshot().map(full)


def added(one: dict[str, float], two: dict[str, float]) -> dict[str, Any]:
    return {
        name: pytest.approx(one.get(name, 0) + two.get(name, 0)) for name in one.keys() | two.keys()
    }


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=examples(30))
def test_counters_of_two_are_added(one: Snapshot, two: Snapshot) -> None:
    assert counted(merge([one, two])) == added(counted(one), counted(two))


def test_every_counter_is_added() -> None:
    """Fails where somebody adds a field of a kind that there is no rule for."""
    whole = merge([snapshot(a_metrics(2)), snapshot(a_metrics(3))]).metrics
    for field in attrs.fields(Metrics):
        value = getattr(whole, field.name)
        if field.name == "average_queue_duration_ms":
            assert value == pytest.approx((2 * 2 + 3 * 3) / 5)
        elif isinstance(value, int):
            assert value == 5, field.name
        elif isinstance(value, dict):
            assert value, field.name
            assert set(value.values()) == {5}, field.name
        else:
            assert (value.sum, value.counts[2]) == (10, 5), field.name
            assert value.bounds == getattr(Metrics(), field.name).bounds


BY_OTHER_RULES = {
    *("version", "started", "uptime", "serves_tls", "certificates", "workers", "worker_restarts"),
    *("process", "clients_total", "clients_remote", "key_sent_bytes", "key_received_bytes"),
    *("current_dup_client_keys", "current_dup_client_conns"),
    *("rate_limit_per_client_bytes_per_second", "rate_limit_per_client_burst_bytes"),
}


def test_all_other_gauges_are_added() -> None:
    names = {field.name for field in attrs.fields(Gauges)}
    assert set(COUNTED) == names - BY_OTHER_RULES
    two = [snapshot(gauges=gauges(**dict.fromkeys(COUNTED, number))) for number in (2, 3)]
    whole = merge(two).gauges
    assert {getattr(whole, name) for name in COUNTED} == {5}


def test_the_first_stands_for_the_relay() -> None:
    names = ("version", "started", "uptime", "serves_tls", "certificates")
    odd: dict[str, Any] = {name: f"the first {name}" for name in (*names, "workers")}
    whole = merge([snapshot(gauges=gauges(**odd)), snapshot(gauges=gauges(workers=9))]).gauges
    assert {name: getattr(whole, name) for name in odd} == odd


def clients(*found: tuple[int, int]) -> tuple[int, int, int]:
    whole = merge(
        [snapshot(gauges=gauges(clients_local=here, clients_total=known)) for here, known in found]
    ).gauges
    return whole.clients_local, whole.clients_remote, whole.clients_total


def test_clients_elsewhere_are_those_that_no_worker_has() -> None:
    # The supervisor, and two workers that know of each other's and of four elsewhere.
    assert clients((0, 0), (3, 12), (5, 12)) == (8, 4, 12)
    # One has not heard of the last ones.
    assert clients((0, 0), (3, 9), (5, 12)) == (8, 4, 12)
    # Neither has heard of the other's.
    assert clients((0, 0), (3, 3), (5, 5)) == (8, 0, 8)


def test_a_key_at_two_workers_is_connected_twice() -> None:
    whole = merge(
        [
            snapshot(repeated={A: 1, B: 2}),
            snapshot(repeated={A: 1}),
            # It has left the other worker by now.
            snapshot(repeated={C: 1}),
        ]
    )
    assert (
        whole.gauges.current_dup_client_keys,
        whole.gauges.current_dup_client_conns,
    ) == (2, 4)


def test_what_processes_take_is_added() -> None:
    other = attrs.evolve(
        PROCESS,
        open_fds=100,
        max_fds=1000,
        cpu_seconds=2.5,
        resident_bytes=1,
        virtual_bytes=2,
        virtual_max_bytes=9000,
        started=400.0,
        received_bytes=100,
        transmitted_bytes=None,
    )
    found = merge([snapshot(), snapshot(gauges=gauges(process=other))]).gauges.process
    assert found == Process(
        open_fds=112,
        max_fds=21000,
        cpu_seconds=3.75,
        resident_bytes=1001,
        virtual_bytes=5002,
        virtual_max_bytes=9000,
        started=100.5,
        booted=50,
        received_bytes=7,
        transmitted_bytes=8,
    )


def test_processes_of_which_nothing_is_known() -> None:
    none = snapshot(gauges=gauges(process=None))
    assert merge([none, snapshot()]).gauges.process == PROCESS
    assert merge([none, none]).gauges.process is None


def test_the_limit_is_that_of_the_first_that_has_one() -> None:
    limit = {"rate_limit_per_client_bytes_per_second": 5, "rate_limit_per_client_burst_bytes": 6}
    whole = merge(
        [
            snapshot(),
            snapshot(gauges=gauges(**limit)),
            snapshot(gauges=gauges(**limit)),
        ]
    ).gauges
    assert {name: getattr(whole, name) for name in limit} == limit


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=examples(30))
def test_no_counter_falls_when_a_process_ends(first: Snapshot, ends: Snapshot) -> None:
    assert counted(merge([first], [final(ends)])) == pytest.approx(counted(merge([first, ends])))


def test_what_is_a_gauge_on_the_page_ends_with_its_process() -> None:
    """And all else stays, but for what is declared so."""
    busy = snapshot(
        a_metrics(3),
        gauges=gauges(**dict.fromkeys(COUNTED, 3), rate_limit_per_client_bytes_per_second=3),
    )
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(busy), re.MULTILINE))
    before, after = values(busy), values(final(busy))
    ended = {name for name in before if after.get(name, 0) != before[name]}
    shown = {name: kinds.get(name.partition("{")[0]) for name in before}
    of_no_type = {
        "derp_average_queue_duration_ms",
        "derp_rate_limit_per_client_bytes_per_second",
        "derp_rate_limit_per_client_waited",
    }
    of_the_first = {"process_start_time_seconds", "process_virtual_memory_max_bytes"}
    gauge_names = {name for name, kind in shown.items() if kind == "gauge"}
    assert ended == {name for name in gauge_names if before[name]} - of_the_first | of_no_type


def test_of_a_process_that_has_ended_only_counters_are_left() -> None:
    ends = snapshot(a_metrics(3), repeated={A: 2}, links=[("a", "b")])
    whole = merge([snapshot(a_metrics(2))], [final(ends)])
    assert set(whole.metrics.tls_active.values()) == {2}
    assert whole.metrics.accepts == 5
    assert whole.metrics.average_queue_duration_ms == pytest.approx(2)
    assert whole.metrics.packets_dropped[DropReason.QUEUE_HEAD, True] == 5
    assert whole.gauges == gauges(
        total_dup_client_conns=8, process=attrs.evolve(PROCESS, cpu_seconds=2.5)
    )
    assert whole.links == []
    # The snapshot itself is as it was.
    assert set(ends.metrics.tls_active.values()) == {3}


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=examples(30))
def test_those_that_have_ended_may_be_kept_together(one: Snapshot, two: Snapshot) -> None:
    together = merge([final(one), final(two)])
    assert counted(merge([snapshot()], [together])) == pytest.approx(
        counted(merge([snapshot()], [final(one), final(two)]))
    )
