"""The map of the package, the contract that `lint-imports` holds, and the tree are the same
list."""

import re
import tomllib
from pathlib import Path

import derp

ROOT = Path(derp.__file__).parents[1]
MAX_LAYERS = 14
MAX_ROOT_FILES = 6


def layers() -> list[list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in settings["contracts"] if c.get("containers") == ["derp"])
    return [re.split(r" \| ", layer) for layer in contract["layers"]]


def test_the_map_is_in_the_order_of_the_contract() -> None:
    mapped = re.findall(r"^    (\w+) {2,}\S", derp.__doc__ or "", re.MULTILINE)
    assert mapped == [name for layer in layers() for name in layer]


def test_the_map_names_all_there_is() -> None:
    packages = {path.parent.name for path in (ROOT / "derp").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "derp").glob("[!_]*.py")}
    assert {name for layer in layers() for name in layer} == packages | modules


def test_the_root_stays_small() -> None:
    assert len(layers()) <= MAX_LAYERS
    assert len([path for path in (ROOT / "derp").iterdir() if path.is_file()]) <= MAX_ROOT_FILES


def test_every_package_has_a_map_of_its_own() -> None:
    """A module that its package's docstring does not name is not to be found by reading."""
    for package in (path.parent for path in (ROOT / "derp").glob("*/__init__.py")):
        text = (package / "__init__.py").read_text()
        missing = (
            {path.stem for path in package.glob("*.py")}
            - {"__init__"}
            - set(re.findall(r"\w+", text))
        )
        assert not missing, f"{package.name}: {missing}"
