"""The chart as helm sees it: it lints, and renders to the files in deploy/kubernetes."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from release import chart

yaml = pytest.importorskip("yaml", reason="PyYAML, which kubernetes-validate has, is missing")


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    if (program := shutil.which("helm")) is None:
        pytest.skip("helm is not installed: the chart is not rendered")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def rendered(*arguments: str) -> list[Any]:
    done = helm("template", "derper", chart.CHART, *arguments)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def documents(text: str) -> list[Any]:
    """What the documents say, in an order of their own: helm sorts them by kind."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return sorted(found, key=lambda document: (document["kind"], document["metadata"]["name"]))


@pytest.mark.parametrize("mode", chart.MODES)
def test_it_renders_to_the_plain_file(mode: str) -> None:
    plain = (chart.PLAIN / f"{mode}.yaml").read_text("utf-8")
    assert rendered("--set", f"mode={mode}") == documents(plain)


@pytest.mark.parametrize("mode", chart.MODES)
def test_it_lints(mode: str) -> None:
    done = helm("lint", "--strict", "--set", f"mode={mode}", chart.CHART)
    assert done.returncode == 0, done.stdout


def test_values_get_where_they_belong() -> None:
    values = ["mode=mesh", "image=a.test/b:1", "mesh.domain=c.test", "mesh.replicas=3"]
    values += ["variables.DERP_WORKERS=auto", "nodeSelector.zone=d", "secret=e", "storage=1Gi"]
    *_, relays = rendered("--set", ",".join(values))
    assert (relays["kind"], relays["spec"]["replicas"]) == ("StatefulSet", 3)
    pod = relays["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"derper": "here", "zone": "d"}
    assert pod["volumes"][0]["secret"]["secretName"] == "e"
    (container,) = pod["containers"]
    assert container["image"] == "a.test/b:1"
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert given["DERP_DOMAIN"] == "$(POD_NAME).c.test"
    assert given["DERP_WORKERS"] == "auto"
    names = [f"derper-{number}.c.test/derper-{number}.derper-mesh" for number in range(3)]
    assert given["DERP_MESH_WITH"] == ",".join(names)


@pytest.mark.parametrize("wrong", ["mode=swarm", "mesh.replicas=1", "variables.PATH=x", "imag=x"])
def test_wrong_values_are_refused(wrong: str) -> None:
    done = helm("template", "derper", chart.CHART, "--set", wrong)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
