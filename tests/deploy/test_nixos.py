"""The NixOS module says what pyproject.toml and the unit say; nobody has run it."""

import re
import tomllib

from derp.config import flag_table
from tests.deploy.files import DEPLOY, ROOT, SERVICE, unit

TEXT = (DEPLOY / "nixos/derper.nix").read_text("utf-8")


def test_it_says_that_it_is_untested() -> None:
    assert "UNTESTED" in TEXT.splitlines()[0]


def test_the_dependencies_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [re.split(r"[<>=]", each)[0] for each in project["dependencies"]]
    (listed,) = re.findall(r"dependencies = with pkgs\.python3Packages; \[(.*?)\]", TEXT, re.DOTALL)
    assert listed.split() == wanted


def test_the_version_is_read_where_it_stands() -> None:
    assert "builtins.readFile ../../derp/__init__.py" in TEXT
    assert not re.search(r"version = \"\d", TEXT)


def test_the_service_is_the_unit() -> None:
    (body,) = re.findall(r"serviceConfig = \{\n(.*?)\n      \};", TEXT, re.DOTALL)
    settings = dict(re.findall(r"(?m)^        (\w+) = (.*);$", body))
    told = {name.removeprefix("Service."): values for name, values in unit(SERVICE).items()}
    # Paths of Nix, and a state directory that never was root's.
    others = {"ExecStart", "ExecReload", "ExecStartPre", "Environment", "EnvironmentFile"}
    ours = {name: values for name, values in told.items() if "." not in name and name not in others}
    assert settings.keys() - others == ours.keys()
    for name, values in ours.items():
        shown = re.findall(r'"([^"]*)"', settings[name]) or [settings[name]]
        assert [{"true": "yes"}.get(each, each) for each in shown] == values, name


def test_variables_are_those_of_derper() -> None:
    known = {flag.variable for flag in flag_table({}, root=True)}
    used = set(re.findall(r"DERP_[A-Z_]+\b", TEXT)) - {"DERP_"}
    assert used
    assert used <= known
