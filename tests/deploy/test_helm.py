"""deploy/helm is made of deploy/kubernetes, and has a value for all that it asks for."""

import json
import re

from release import chart

VALUES = (chart.CHART / "values.yaml").read_text("utf-8")
TEMPLATES = {path.stem: path.read_text("utf-8") for path in chart.CHART.glob("templates/*")}


def test_it_is_what_the_plain_files_make() -> None:
    for name, text in chart.files().items():
        assert (chart.CHART / name).read_text("utf-8") == text, "run python -m release.chart"
    assert set(TEMPLATES) == set(chart.MODES)
    assert {path.stem for path in chart.PLAIN.glob("*.yaml")} == {*chart.MODES, "secret.example"}


def test_what_an_operator_fills_in_is_a_value() -> None:
    for text in TEMPLATES.values():
        assert "example.com" not in text
        assert not re.search(r"replicas: [2-9]", text)


def test_every_value_is_there_and_used() -> None:
    there = {name for name in re.findall(r"^(\w+):", VALUES, re.MULTILINE) if name != "mesh"}
    there |= {f"mesh.{name}" for name in re.findall(r"^  (domain|replicas):", VALUES, re.MULTILINE)}
    used = {name for text in TEMPLATES.values() for name in re.findall(r"\.Values\.([\w.]+)", text)}
    assert used == there


def test_the_schema_knows_every_value() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text("utf-8"))
    assert set(schema["properties"]) == {"global", *re.findall(r"^(\w+):", VALUES, re.MULTILINE)}
    assert set(schema["properties"]["mode"]["enum"]) == set(chart.MODES)
