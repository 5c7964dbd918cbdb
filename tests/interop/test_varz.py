"""Metrics under the names, types and labels that dashboards made for the Go derper know."""

import re
import urllib.request
from collections.abc import Mapping

from tests.interop.stage import Place, Stage

GO_ONLY = re.compile(r"go_|memstats_")
"""What tells of Go's runtime, which ours has not."""


def metrics(place: Place) -> Mapping[str, set[str]]:
    """Each metric's type, and the labels of its series; the labels' numbers left out."""
    with urllib.request.urlopen(f"http://{place.http[0]}:{place.http[1]}/debug/varz") as page:
        lines = page.read().decode().splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        if typed := re.fullmatch(r"# TYPE (\S+) (\S+)", line):
            found.setdefault(typed[1], set()).add(f"is a {typed[2]}")
        elif not line.startswith("#"):
            series = re.fullmatch(r"([a-z_0-9A-Z]+)(\{.*\})? (\S+)", line)
            assert series, line
            float(series[3])
            found.setdefault(series[1], set()).add(series[2] or "has no labels")
    return found


def test_metrics_have_the_names_they_always_had(reference: Place, tested: Place) -> None:
    for place in (reference, tested):
        stage = Stage(place)
        stage.login("alice", tls=True).settle()
        stage.close()
    theirs, ours = metrics(reference), metrics(tested)
    # The version is there, but not the same one.
    assert ours["version"]
    wanted = {
        name: shape
        for name, shape in theirs.items()
        if not GO_ONLY.match(name) and name != "version"
    }
    assert {name: ours.get(name) for name in wanted} == wanted
