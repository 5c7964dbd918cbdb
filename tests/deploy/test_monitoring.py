"""deploy/monitoring/ asks for what the relay shows: metrics, their labels, the labels' values."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from derp.admission.checker import VERDICTS
from derp.admission.model import Outcome
from derp.config import flag_table
from derp.errors import ConnectionEnd
from derp.metrics import DropReason
from derp.metrics.figures import Histogram, Labelled
from derp.metrics.prometheus import families
from tests.deploy.files import DEPLOY
from tests.metrics.test_prometheus import everything

MONITORING = DEPLOY / "monitoring"
RULES, RULES_TEST = MONITORING / "rules.yaml", MONITORING / "rules_test.yaml"
PROMETHEUS, COMPOSE = MONITORING / "prometheus.yaml", MONITORING / "compose.yaml"
DASHBOARD = MONITORING / "grafana" / "derper.json"
PROMTOOL = shutil.which("promtool")

SCRAPED = {"job", "instance"}
"""Labels that Prometheus gives to all that it scrapes."""
ENDS = {end.reason for end in ConnectionEnd.__subclasses__()} | {"closed"}
VALUES: dict[tuple[str, str], set[str]] = {
    ("derp_packets_dropped", "reason"): {reason.value for reason in DropReason},
    ("derp_connection_ends", "reason"): ENDS,
    ("derper_admissions", "outcome"): {outcome.value for outcome in Outcome},
    ("derper_admission_verdicts", "verdict"): set(VERDICTS),
}

SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)\b(\{[^}]*\})?(?!\s*\()")
MATCHER = re.compile(r'(\w+)\s*(=~|=)\s*"([^"]*)"')
WORDS = {"and", "or", "by", "on", "group_left"}


def served() -> dict[str, set[str]]:
    """Return the names of all series that the relay shows, each with its labels."""
    found = {"up": set(SCRAPED)}
    for name, family in families(*everything()).items():
        labels = set(SCRAPED)
        if isinstance(family.variable, Labelled):
            labels |= set(family.variable.labels)
        endings = [""]
        if isinstance(family.variable, Histogram):
            endings, labels = ["_bucket", "_sum", "_count"], labels | {"le"}
        found |= {f"{name}{ending}": labels for ending in endings}
    return found


def expressions(path: Path) -> list[str]:
    """Return all that Prometheus is asked for."""
    text = path.read_text("utf-8")
    if path == RULES:
        found = re.findall(r"^ +expr: (?:>-\n((?: {10,}.*\n)+)|(.+)\n)", text, re.MULTILINE)
        return [" ".join((block or line).split()) for block, line in found]
    dashboard = json.loads(text)
    asked = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    return asked + [each["expr"] for each in dashboard["annotations"]["list"]]


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield the names of the series in an expression, each with its matchers."""
    bare = re.sub(r"\b(by|on|group_left) \([^)]*\)|\[[^]]*\]", " ", expression)
    for name, matchers in SELECTOR.findall(bare):
        if name not in WORDS:
            yield name, MATCHER.findall(matchers)


FILES = pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)


def test_what_is_read_of_an_expression_is_not_nothing() -> None:
    text = 'sum by (x) (rate(a_b{c="d", e=~"f|g"}[5m])) / h > 0.5 and time() - i < 14 * 86400'
    assert list(selectors(text)) == [
        ("a_b", [("c", "=", "d"), ("e", "=~", "f|g")]),
        ("h", []),
        ("i", []),
    ]
    assert len(expressions(RULES)) == RULES.read_text("utf-8").count("- alert:") > 10
    assert len(expressions(DASHBOARD)) > 40


@FILES
def test_each_metric_is_one_that_the_relay_shows(path: Path) -> None:
    known = served()
    for expression in expressions(path):
        for name, matchers in selectors(expression):
            assert name in known, expression
            assert {label for label, _, _ in matchers} <= known[name], expression
            for label, how, value in matchers:
                if values := VALUES.get((name, label)):
                    matched = {each for each in values if re.fullmatch(value, each)}
                    assert matched, expression
                    if how == "=~" and "(" not in value:
                        assert set(value.split("|")) <= values, expression


@FILES
def test_what_is_summed_up_by_is_a_label(path: Path) -> None:
    known = set().union(*served().values())
    for expression in expressions(path):
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert set(labels.split(", ")) <= known, expression


def test_labels_in_texts_are_those_of_the_series() -> None:
    known = set().union(*served().values())
    for path in (RULES, DASHBOARD):
        text = path.read_text("utf-8")
        named = re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text)
        assert named
        assert set(named) <= known


def test_flags_in_texts_are_the_relays() -> None:
    flags = {flag.name for flag in flag_table({}, root=True)}
    for path in (RULES, DASHBOARD, PROMETHEUS, COMPOSE):
        text = path.read_text("utf-8")
        assert set(re.findall(r"(?<![\w-])-([a-z]+-[a-z-]+)", text)) <= flags


def test_the_job_is_the_one_that_rules_and_dashboard_are_for() -> None:
    (job,) = re.findall(r"job_name: (\w+)", PROMETHEUS.read_text("utf-8"))
    for path in (RULES, DASHBOARD):
        used = re.findall(r'job="(\w+)"', path.read_text("utf-8").replace('\\"', '"'))
        assert set(used) == {job}


def test_compose_has_the_relay_where_prometheus_looks() -> None:
    text = COMPOSE.read_text("utf-8")
    (address,) = re.findall(r"DERP_METRICS_ADDR: (\S+)", text)
    assert f'targets: ["{address}"]' in PROMETHEUS.read_text("utf-8")
    assert re.findall(r"web.listen-address=(\S+)", text) == ["127.0.0.1:9090"]
    assert "url: http://127.0.0.1:9090\n" in (MONITORING / "grafana/datasource.yaml").read_text()
    for file in re.findall(r"- (\./\S+?):/", text):
        # Where two files are given, paths are those from the first one's directory.
        assert (DEPLOY / file).is_file(), file


def test_panels_are_told_apart_and_have_a_place() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in every):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.slow
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", PROMETHEUS),
        ("check", "rules", "--lint-fatal", RULES),
        ("test", "rules", RULES_TEST),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_promtool_agrees(arguments: tuple[Any, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))
    tested = RULES_TEST.read_text("utf-8")
    for alert in alerts:
        assert f"alertname: {alert}" in tested, "that it is quiet"
        assert f'alertname="{alert}"}}' in tested, "that it fires"
