"""The figures of several processes, added up."""

import re
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from derp.http.bootstrap_dns import BootstrapDNS
from derp.metrics import DropReason, Gauges, Metrics, Process, render
from derp.workers.merge import GAUGES, merge, retired
from derp.workers.snapshot import Snapshot, counters
from stun.server import Stats
from tests.workers.snapshots import PROCESS, any_share, gauges, snapshot

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def page(shown: Snapshot) -> str:
    return render(shown.metrics, shown.gauges, shown.stun, shown.names)


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


@given(any_share())
def test_of_one_it_is_the_same(one: Snapshot) -> None:
    whole = merge([one])
    assert page(whole) == page(one)
    assert whole.members == one.members
    assert list(whole.links) == list(one.links)


def full(one: Snapshot) -> Snapshot:
    """Have a share show all that depends on something else; the network's figures are not added."""
    one.metrics.admission_verdicts.setdefault("allowed", 0)
    process = attrs.evolve(
        one.gauges.process or PROCESS, received_bytes=None, transmitted_bytes=None
    )
    rest = gauges(serves_tls=True, rate_limit_bytes_per_second=1)
    return attrs.evolve(
        one, gauges=attrs.evolve(rest, process=process, uptime=0.0, total_dup_client_conns=one.pid)
    )


FULL = any_share().map(full)


def added(one: dict[str, float], two: dict[str, float]) -> dict[str, Any]:
    return {
        name: pytest.approx(one.get(name, 0) + two.get(name, 0)) for name in one.keys() | two.keys()
    }


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=30)
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


def test_a_figure_without_a_rule_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Metrics()
    odd.got_ping = 0.5  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"0\.5"):
        merge([snapshot(odd)])


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, field.name) for kind in (Stats, BootstrapDNS) for field in counters(kind)],
)
def test_what_others_count_is_added(kind: Any, name: str) -> None:
    which = "stun" if kind is Stats else "names"
    whole = merge([snapshot(**{which: kind(**{name: number})}) for number in (2, 3)])
    assert getattr(whole, which) == kind(**{name: 5})


def test_a_name_is_no_counter() -> None:
    assert len(counters(Stats)) == 6
    assert len(counters(BootstrapDNS)) == 7


ADDED = {
    *("tasks", "clients_local", "watchers", "total_dup_client_conns", "memory_at_start"),
    *("queue_bytes", "queue_limit_bytes"),
}
OF_THE_FIRST = {
    *("version", "started", "uptime", "serves_tls", "certificates", "workers", "worker_restarts"),
}
BY_OTHER_RULES = {
    *("process", "clients_total", "clients_remote", "dup_client_keys", "dup_client_conns"),
    *("rate_limit_bytes_per_second", "rate_limit_burst_bytes"),
}


def test_every_gauge_has_a_rule() -> None:
    """Whoever adds one says here, and in `merge`, what it is for several processes."""
    names = {field.name for field in attrs.fields(Gauges)}
    assert names == ADDED | OF_THE_FIRST | BY_OTHER_RULES
    odd: dict[str, Any] = {
        field.name: f"the first {field.name}" for field in attrs.fields(Gauges)
    } | dict.fromkeys(ADDED, 2)
    plain = {name: getattr(gauges(), name) for name in BY_OTHER_RULES}
    two = gauges(**dict.fromkeys(ADDED, 3), workers=99, worker_restarts=99, serves_tls=False)
    whole = merge([snapshot(gauges=Gauges(**(odd | plain))), snapshot(gauges=two)]).gauges
    assert {getattr(whole, name) for name in ADDED} == {5}
    for name in OF_THE_FIRST:
        assert getattr(whole, name) == f"the first {name}"


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
    assert (whole.gauges.dup_client_keys, whole.gauges.dup_client_conns) == (2, 4)


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


def test_the_limit_is_that_of_one_who_has_it() -> None:
    whole = merge(
        [
            snapshot(),
            snapshot(gauges=gauges(rate_limit_bytes_per_second=5, rate_limit_burst_bytes=6)),
            snapshot(gauges=gauges(rate_limit_bytes_per_second=5, rate_limit_burst_bytes=6)),
        ]
    ).gauges
    assert (whole.rate_limit_bytes_per_second, whole.rate_limit_burst_bytes) == (5, 6)


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=30)
def test_no_counter_falls_when_a_process_ends(first: Snapshot, ends: Snapshot) -> None:
    assert counted(merge([first], [retired(ends)])) == pytest.approx(counted(merge([first, ends])))


def test_what_is_a_gauge_on_the_page_ends_with_its_process() -> None:
    kinds = dict(re.findall(r"^# TYPE derp(?:er)?_(\S+) (\S+)$", page(snapshot()), re.MULTILINE))
    kinds["tls_active"] = kinds["tls_active_version"]
    names = {field.name for field in attrs.fields(Metrics)}
    assert {name for name in names if kinds.get(name) == "gauge"} == GAUGES


def test_of_a_process_that_has_ended_only_counters_are_left() -> None:
    ends = snapshot(a_metrics(3), members=7, repeated={A: 2}, links=[("a", "b")])
    whole = merge([snapshot(a_metrics(2))], [retired(ends)])
    for name in GAUGES:
        value = getattr(whole.metrics, name)
        assert value == 2 or set(value.values()) == {2}, name
    assert whole.metrics.accepts == 5
    assert whole.metrics.average_queue_duration_ms == pytest.approx(2)
    assert whole.metrics.packets_dropped[DropReason.QUEUE_HEAD, True] == 5
    assert whole.gauges == gauges(
        total_dup_client_conns=8, process=attrs.evolve(PROCESS, cpu_seconds=2.5)
    )
    assert (whole.members, whole.links) == (0, [])
    # The one that was there goes on as it is.
    assert ends.metrics.current_connections == 3


@pytest.mark.slow
@given(FULL, FULL)
@settings(max_examples=30)
def test_those_that_have_ended_may_be_kept_together(one: Snapshot, two: Snapshot) -> None:
    together = retired(merge([retired(one), retired(two)]))
    assert counted(merge([snapshot()], [together])) == pytest.approx(
        counted(merge([snapshot()], [retired(one), retired(two)]))
    )
