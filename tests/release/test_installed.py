"""The source archive and the wheel, installed into empty environments, serve Go's clients."""

from pathlib import Path

import pytest

import derp
from tests.interop.relay import TestCA
from tests.release import pythons
from tests.release.serving import run, serves

PYTHON = pytest.mark.parametrize("python", pythons.supported())


def installed(python: str, package: Path, folder: Path) -> Path:
    """Install it into an environment of its own; return the program."""
    run(pythons.found()[python], "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", package, timeout=600)
    return folder / "bin/derper"


@pytest.fixture(params=["wheel", "sdist"])
def package(request: pytest.FixtureRequest) -> Path:
    """Each of the two."""
    return request.getfixturevalue(request.param)


@PYTHON
def test_it_serves(
    python: str, package: Path, tmp_path: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    derper = installed(python, package, tmp_path / "environment")
    told = run(derper, "-version")
    assert told.startswith(f"{derp.__version__} (trio-derper, Python {python}.")
    serves([derper], tmp_path, binaries, test_ca)


def test_every_python_that_it_is_for_is_here() -> None:
    if missing := pythons.missing():
        pytest.skip(f"not installed here: Python {', '.join(missing)}")
