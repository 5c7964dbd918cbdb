"""The same scripted exchanges against the Go derper and the relay under test, frame by frame."""

import difflib
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import TestCA
from golang import HERE
from rawderp import SERVER
from relay import Relay, running, write_key_file
from stage import SCENARIOS, Place, Scenario, Stage

for _module in sorted(HERE.glob("scenarios_*.py")):
    importlib.import_module(_module.stem)


@pytest.fixture(scope="session")
def reference(
    binaries: dict[str, Path], test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The Go derper."""
    command = [str(binaries["derper"])]
    yield from place(command, test_ca, tmp_path_factory.mktemp("reference"), may_panic=True)


@pytest.fixture(scope="session")
def tested(
    under_test: list[str],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
    is_go: bool,
) -> Iterator[Place]:
    """The relay under test, with the same key and the same certificate authority."""
    yield from place(under_test, test_ca, tmp_path_factory.mktemp("tested"), may_panic=is_go)


def place(command: list[str], test_ca: TestCA, folder: Path, *, may_panic: bool) -> Iterator[Place]:
    write_key_file(folder / "derper.key", SERVER.private)
    test_ca.issue(folder, "localhost")
    with (
        running(Relay("tls", command, folder, may_panic=may_panic)) as tls,
        running(Relay("plain", command, folder, tls=False, may_panic=may_panic)) as plain,
    ):
        yield Place(
            tls=(tls.host, tls.port),
            plain=(plain.host, plain.port),
            http=(tls.host, tls.http_port),
            ca=str(test_ca.pem),
        )


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
def test_exchange(name: str, reference: Place, tested: Place, is_go: bool) -> None:
    scene = SCENARIOS[name]
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(perform, scene, reference)
        ours = pool.submit(perform, scene, tested)
        expected, got = theirs.result(timeout=120), ours.result(timeout=120)
    if not is_go:
        expected = scene.expected(expected)
    if got != expected:
        diff = difflib.unified_diff(expected, got, "expected", "got", n=99, lineterm="")
        pytest.fail("\n".join(diff), pytrace=False)
