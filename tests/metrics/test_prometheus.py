"""The page for Prometheus: every metric is explained and typed, and is that of /debug/varz."""

import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

from derp.metrics import (
    Certificate,
    DropReason,
    Gauges,
    Metrics,
    Process,
    render_metrics,
    render_varz,
)
from derp.metrics.figures import figures
from tests.metrics.test_varz import GAUGES, busy_metrics, values

PROMTOOL = shutil.which("promtool")
NAMED_BY_GO = frozenset(
    re.findall(
        r"^([a-z_0-9]+?)(?:_bucket|_sum|_count)?(?:[{ ]|$)",
        Path(__file__).with_name("varz_go.txt").read_text("utf-8"),
        re.MULTILINE,
    )
)
LIKE_THEM = frozenset(
    {
        *("derp_connection_ends", "derper_admission_verdicts", "derper_admissions"),
        *("derper_certificate_failures", "derper_certificate_replaced", "derper_worker_restarts"),
    }
)
"""Ours that are older than the page. No others may have a name that the linter complains about."""
COMPLAINTS_OF_NAMES = frozenset(
    {
        'counter metrics should have "_total" suffix',
        'non-counter metrics should not have "_total" suffix',
        'non-histogram metrics should not have "le" label',
        "metric names should not contain abbreviated units",
    }
)


def everything() -> tuple[Metrics, Gauges]:
    """Figures of a relay that shows all that there is."""
    metrics = busy_metrics()
    metrics.admission("url", "allowed")
    metrics.admission_verdict("allowed")
    metrics.monitor_ended(None)
    certificate = Certificate(
        name="a.example",
        lifetime=90,
        not_after=5,
        replaced=1,
        replaced_at=2,
        failures=1,
        failed_at=3,
        failure='said "no"\n',
    )
    keys = {"nodekey:00": 7, "other": 3}
    gauges = attrs.evolve(
        GAUGES, certificates=[certificate], workers=2, key_sent_bytes=keys, key_received_bytes=keys
    )
    return metrics, gauges


def families(text: str) -> dict[str, tuple[str, str]]:
    """Return the help and the type of each metric, which have to come before its samples."""
    found: dict[str, tuple[str, str]] = {}
    lines = iter(text.splitlines())
    name = ""
    for line in lines:
        if help_line := re.fullmatch(r"# HELP ([a-z_0-9]+) (\S.*)", line):
            name = help_line[1]
            assert name not in found
            typed = re.fullmatch(rf"# TYPE {name} (counter|gauge|histogram)", next(lines))
            assert typed, line
            found[name] = help_line[2], typed[1]
        else:
            assert re.fullmatch(rf"{name}(_bucket|_sum|_count)?(\{{.+\}})? \S+", line), line
    return found


def test_each_figure_is_explained() -> None:
    for kind in (Metrics, Gauges, Process, Certificate):
        for field, figure in figures(kind).items():
            assert bool(figure.help) == bool(figure.name), field
            if figure.help:
                assert re.fullmatch(r"[A-Z][^\n\\]+\.", figure.help), field


def test_each_metric_has_help_and_type() -> None:
    found = families(render_metrics(*everything()))
    assert len(found) > 80
    assert found["derp_packets_dropped"] == (
        "Packets that were not delivered, by reason, and whether they are disco packets.",
        "counter",
    )
    # Those that have no type on the other page.
    for name in ("version", "node_boot_time_seconds", "derp_average_queue_duration_ms"):
        assert found[name][1] == "gauge"
    assert found["derper_tls_request_version"][1] == "counter"
    assert found["derper_tls_active_version"][1] == "gauge"
    assert found["derp_buffered_write_frames"][1] == "histogram"


def test_samples_are_those_of_the_other_page() -> None:
    metrics, gauges = everything()
    metrics.drop(DropReason.QUEUE_HEAD, disco=False, packets=3, nbytes=9)
    assert values(render_metrics(metrics, gauges)) == values(render_varz(metrics, gauges))
    assert (
        families(render_metrics(Metrics(), GAUGES)).keys()
        < families(render_metrics(metrics, gauges)).keys()
    )


def test_keys_are_shown_only_where_they_are_asked_for() -> None:
    assert "derper_key_" not in render_metrics(Metrics(), GAUGES)
    page = values(render_metrics(*everything()))
    assert page['derper_key_sent_bytes_total{key="nodekey:00"}'] == 7
    assert page['derper_key_received_bytes_total{key="other"}'] == 3


@pytest.mark.slow
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_complains_of_nothing_but_names_that_dashboards_know() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=render_metrics(*everything()),
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line.split(" ", 1) for line in done.stderr.splitlines()]
    assert {what for _, what in complaints} <= COMPLAINTS_OF_NAMES, done.stderr
    assert {name for name, _ in complaints} <= NAMED_BY_GO | LIKE_THEM, done.stderr
    assert {name for name, _ in complaints} >= LIKE_THEM
    # 3: there are complaints; 1: the page can't be read.
    assert done.returncode == 3
