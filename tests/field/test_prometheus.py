"""A real Prometheus scrapes the relay with the configuration, and the rules, of deploy/monitoring/.

Grafana itself is not run: the dashboard's queries are asked of Prometheus, as Grafana would.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.deploy.test_monitoring import DASHBOARD, PROMETHEUS, RULES, expressions
from tests.interop.relay import (
    STOP_TIMEOUT,
    Relay,
    TestCA,
    die_with_parent,
    free_port,
    running,
)
from tests.support.waiting import until

USUAL = "127.0.0.1:9098"
"""Where prometheus.yaml looks for the relay."""


@attrs.frozen
class Prometheus:
    address: str
    log: Path

    def get(self, path: str, **query: str) -> Any:
        """Ask its API; return what it has. Raises AssertionError for what it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=STOP_TIMEOUT) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def serves(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=STOP_TIMEOUT).close()
        except OSError:
            return False
        return True

    def value(self, expression: str) -> float | None:
        """Return the value of the only series that an expression yields; None for none."""
        found = self.get("query", query=expression)["result"]
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, test_ca: TestCA) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    folder = tmp_path_factory.mktemp("prometheus")
    test_ca.issue(folder, "localhost")
    port = free_port()
    flags = ["-metrics-addr", f"127.0.0.1:{port}", "-metrics-per-key", "5", "-workers", "2"]
    relay = Relay("relay", [sys.executable, "-m", "derp"], folder, flags=flags)
    with running(relay), scraping(folder, port) as found:
        yield found


@contextlib.contextmanager
def scraping(folder: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus on the relay's port for monitors, every second, not four times a minute."""
    conf = PROMETHEUS.read_text().replace(USUAL, f"127.0.0.1:{port}")
    assert conf.count("interval: 15s") == 2
    (folder / "prometheus.yaml").write_text(conf.replace("interval: 15s", "interval: 1s"))
    shutil.copy(RULES, folder)
    found = Prometheus(f"127.0.0.1:{free_port()}", folder / "prometheus.log")
    with found.log.open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={found.address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no threads here yet
        )
    try:
        until("Prometheus serves", lambda: process.poll() is not None or found.serves())
        assert process.poll() is None, found.log.read_text()
        yield found
    finally:
        process.kill()
        process.wait(STOP_TIMEOUT)


def test_it_scrapes_the_relay(prometheus: Prometheus) -> None:
    until("it has scraped", lambda: prometheus.value('up{job="derper"}') == 1)
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.value("derper_workers") == 2
    assert prometheus.value("derper_accepting_processes") == 2
    days = prometheus.value("(derper_certificate_expiry_seconds - time()) / 86400")
    assert days is not None
    assert days > 1


def test_it_knows_what_each_metric_is(prometheus: Prometheus) -> None:
    until("it has scraped", lambda: prometheus.value("up") == 1)
    known = prometheus.get("metadata")
    told = {"type": "gauge", "help": "Logged-in clients.", "unit": ""}
    assert known["derp_current_connections"] == [told]
    assert known["derp_buffered_write_frames"][0]["type"] == "histogram"
    for name, (told, *more) in known.items():
        assert told["help"], name
        assert told["type"] in {"counter", "gauge", "histogram"}, name
        assert not more, name


def test_its_rules_are_evaluated_and_none_fires(prometheus: Prometheus) -> None:
    def rules() -> list[Any]:
        (group,) = prometheus.get("rules")["groups"]
        assert isinstance(group["rules"], list)
        return group["rules"]

    until("all are evaluated", lambda: {rule["health"] for rule in rules()} == {"ok"})
    assert len(rules()) == RULES.read_text().count("- alert:")
    assert {rule["name"]: rule["state"] for rule in rules() if rule["state"] != "inactive"} == {}


def test_it_answers_the_dashboards_queries(prometheus: Prometheus) -> None:
    until("it has scraped", lambda: prometheus.value("up") == 1)
    variables = {"$__rate_interval": "1m", "$instance": ".*"}
    empty = set()
    for expression in expressions(DASHBOARD):
        query = re.sub(r"\$\w+", lambda match: variables[match[0]], expression)
        if not prometheus.get("query", query=query)["result"]:
            empty.add(query)
    # Rates want two scrapes, and some figures have no series before something happens.
    assert not {query for query in empty if "[" not in query}
