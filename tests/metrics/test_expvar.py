"""The page beside the Go derper's: `vars_go.json` is what version 1.102.5 of it shows, over TLS and
with -rate-config, with zeros for the numbers and without what is in memstats.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from derp.metrics import Certificate, DropReason, Metrics, render_expvar, render_varz
from tests.metrics.test_varz import GAUGES, values

LEFT_OUT = {"go_sync_mutex_wait_seconds", "go_version", "memstats"}
"""What only a Go runtime has."""
BETTER = {"derp_bytes_dropped", "derp_packets_dropped"}
"""The Go derper shows a word in place of what it has counted."""


def text(metrics: Metrics | None = None, **changes: Any) -> str:
    return render_expvar(metrics or Metrics(), attrs.evolve(GAUGES, **changes))


def page(metrics: Metrics | None = None, **changes: Any) -> dict[str, Any]:
    found = json.loads(text(metrics, **changes))
    assert isinstance(found, dict)
    return found


def shape(value: Any) -> Any:
    """What a program that reads the page relies on: names, and the kinds of values."""
    if isinstance(value, dict):
        return {name: shape(inside) for name, inside in value.items()}
    return "number" if isinstance(value, int | float) else type(value)


def test_everything_on_the_go_derpers_page_is_on_ours() -> None:
    go = json.loads(Path(__file__).with_name("vars_go.json").read_text(encoding="utf-8"))
    metrics = Metrics()
    metrics.tls_request("TLSv1.3")
    with metrics.tls_active_while("TLSv1.3"):
        ours = page(metrics)
    wanted = {name: shape(go[name]) for name in go.keys() - LEFT_OUT - BETTER}
    # A reason more, where connections end.
    del ours["derp"]["counter_connection_ends"]
    assert {name: shape(ours[name]) for name in wanted} == wanted
    assert len(wanted) > 15
    assert LEFT_OUT.isdisjoint(ours)
    assert all(isinstance(ours[name], dict) for name in BETTER)


def test_it_is_written_as_expvar_writes_it() -> None:
    lines = text().splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    names = [json.loads(f"{{{line.removesuffix(',')}}}") for line in lines[1:-1]]
    assert [list(each) for each in names] == [[name] for name in sorted(page())]


def test_the_command_line_tells_no_secrets() -> None:
    assert page()["cmdline"] == ["derper"]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inside in value.values():
            yield from numbers(inside)
    elif isinstance(value, int | float):
        yield value


def test_no_number_of_the_other_page_is_missing() -> None:
    metrics = Metrics(accepts=5, average_queue_duration_ms=0.25)
    metrics.drop(DropReason.QUEUE_HEAD, disco=True, packets=7, nbytes=700)
    metrics.tls_request("TLSv1.3")
    metrics.round_trip(0.001)
    metrics.admission("tailscaled", "allowed")
    metrics.admission_verdict("allowed")
    metrics.mesh_updates(3)
    certificate = Certificate(
        name="derp.example", not_after=9, replaced=1, replaced_at=2, failures=3, failed_at=4
    )
    certificate = attrs.evolve(certificate, failure="no")
    changes = {"certificates": [certificate], "workers": 2, "worker_restarts": 1}
    gauges = attrs.evolve(GAUGES, **changes)
    shown = values(render_varz(metrics, gauges))
    # The version is text here.
    del shown['version{version="0.1.0",binary="derper"}']
    assert sorted(map(float, numbers(page(metrics, **changes)))) == sorted(shown.values())


def test_labels_are_names_of_objects() -> None:
    metrics = Metrics()
    metrics.drop(DropReason.QUEUE_HEAD, disco=True, packets=7, nbytes=700)
    metrics.admission("https://a.example/", "allowed")
    metrics.admission_verdict("allowed")
    shown = page(metrics)
    assert shown["derp_packets_dropped"]["queue_head"] == {"disco": 7, "other": 0}
    assert shown["derp_bytes_dropped"]["queue_head"]["disco"] == 700
    assert shown["counter_derper_admissions"] == {"https://a.example/": {"allowed": 1}}
    assert shown["stun"]["counter_addrfamily"] == {"ipv4": 0, "ipv6": 0}
