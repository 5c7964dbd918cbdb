"""The same scripted exchanges against the Go derper and the relay under test, frame by frame."""

import difflib
import importlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.golang import HERE
from tests.interop.stage import SCENARIOS, Place, Scenario, Stage

for _module in sorted(HERE.glob("scenarios_*.py")):
    importlib.import_module(f"tests.interop.{_module.stem}")


def perform(scene: Scenario, place: Place) -> list[str]:
    """Play a scenario, and then see that the stage still stands."""
    stage = Stage(place)
    try:
        scene.play(stage)
    finally:
        stage.note("--- and afterwards")
        stage.close()
    for tls in (False, True):
        stage.login("dave", tls=tls).settle()
    stage.close()
    return stage.transcript


@pytest.mark.parametrize("name", SCENARIOS)
def test_exchange(
    name: str, reference: Place, tested: Place, is_go: bool, differences: list[str]
) -> None:
    scene = SCENARIOS[name]
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(perform, scene, reference)
        ours = pool.submit(perform, scene, tested)
        expected, got = theirs.result(timeout=120), ours.result(timeout=120)
    if not is_go:
        expected = scene.expected(expected)
        reasons = dict.fromkeys(difference.why for difference in scene.differs.values())
        differences += [f"{name}: {why}" for why in reasons]
    if got != expected:
        diff = difflib.unified_diff(expected, got, "expected", "got", n=99, lineterm="")
        pytest.fail("\n".join(diff), pytrace=False)
