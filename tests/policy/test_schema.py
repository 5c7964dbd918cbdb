"""deploy/policy.schema.json, the example beside it, and the parser know the same."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from derp.policy import amounts
from derp.policy.document import DEFAULTS, MAX_LABEL, NAMES, TABLES, PolicyFormError, parse
from derp.wire.keys import node_public_text

DEPLOY = Path(__file__).parents[2] / "deploy"
SCHEMA = json.loads((DEPLOY / "policy.schema.json").read_text("utf-8"))
EXAMPLE = DEPLOY / "policy.example.toml"
KEY = node_public_text(bytes(range(32)))
TYPES = {"object": dict, "string": str, "boolean": bool}


def mismatch(schema: dict[str, Any], value: Any, at: str = "") -> str:
    """Return where a value does not fit a schema; empty if it does.

    Knows the keywords of JSON Schema (draft 2020-12) that this schema has, and no others.
    """
    for keyword, wanted in schema.items():
        if (found := _mismatch(schema, keyword, wanted, value, at)) is not None:
            return found
    return ""


def _mismatch(  # noqa: PLR0911, PLR0912, C901 -- one case for each keyword
    schema: dict[str, Any], keyword: str, wanted: Any, value: Any, at: str
) -> str | None:
    is_object = isinstance(value, dict)
    match keyword:
        case "$schema" | "title" | "description" | "$defs":
            pass
        case "$ref":
            target = SCHEMA
            for name in wanted.removeprefix("#/").split("/"):
                target = target[name]
            return mismatch(target, value, at) or None
        case "type" if not isinstance(value, TYPES[wanted]):
            return f"{at}: no {wanted}"
        case "type":
            pass
        case "const" if type(value) is not type(wanted) or value != wanted:
            return f"{at}: not {wanted}"
        case "const":
            pass
        case "pattern" if isinstance(value, str) and not re.search(wanted, value):
            return f"{at}: not of the form {wanted}"
        case "minLength" if isinstance(value, str) and len(value) < wanted:
            return f"{at}: too short"
        case "maxLength" if isinstance(value, str) and len(value) > wanted:
            return f"{at}: too long"
        case "pattern" | "minLength" | "maxLength":
            pass
        case "minProperties" if is_object and len(value) < wanted:
            return f"{at}: too few"
        case "minProperties":
            pass
        case "required" if is_object and not value.keys() >= set(wanted):
            return f"{at}: lacks one of {wanted}"
        case "required":
            pass
        case "anyOf":
            if all(mismatch(each, value, at) for each in wanted):
                return f"{at}: none of {len(wanted)}"
        case "not":
            if not mismatch(wanted, value, at):
                return f"{at}: what must not be"
        case "properties":
            for name in wanted.keys() & (value if is_object else {}):
                if found := mismatch(wanted[name], value[name], f"{at}.{name}"):
                    return found
        case "patternProperties":
            for name, inner in (value if is_object else {}).items():
                for pattern, each in wanted.items():
                    if re.search(pattern, name) and (
                        found := mismatch(each, inner, f"{at}.{name}")
                    ):
                        return found
        case "additionalProperties":
            assert wanted is False
            for name in value if is_object else ():
                known = name in schema.get("properties", {}) or any(
                    re.search(pattern, name) for pattern in schema.get("patternProperties", {})
                )
                if not known:
                    return f"{at}: {name} is not known"
        case _:
            raise AssertionError(f"this test does not know {keyword}")
    return None


def test_the_example_fits_the_schema_and_is_read() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert text.startswith("#:schema ./policy.schema.json\n")
    assert mismatch(SCHEMA, tomllib.loads(text)) == ""
    policy = parse(text.encode())
    labels = [entry.label for entry in policy.entries.values()]
    assert labels == ["laptop", "backup server", "stolen phone"]
    # So does what it has in comments.
    commented = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    assert commented.count("deny = true") == 2
    assert mismatch(SCHEMA, tomllib.loads(commented)) == ""
    assert parse(commented.encode()).default.allowed is False


def test_the_example_has_every_name() -> None:
    text = EXAMPLE.read_text("utf-8")
    for name in (*NAMES, *TABLES):
        assert re.search(rf"\b{name}\b", text), name


def test_names_are_those_of_the_parser() -> None:
    assert set(SCHEMA["properties"]) == set(TABLES)
    assert set(SCHEMA["properties"]["defaults"]["properties"]) == set(DEFAULTS)
    (entry,) = SCHEMA["properties"]["clients"]["patternProperties"].values()
    assert set(entry["properties"]) == set(NAMES)
    assert entry["properties"]["label"]["maxLength"] == MAX_LABEL


def test_forms_are_those_of_the_parser() -> None:
    defs = SCHEMA["$defs"]
    for name, pattern in (("rate", amounts.RATE_PATTERN), ("quota", amounts.QUOTA_PATTERN)):
        word, form = defs[name]["anyOf"]
        assert word == {"const": amounts.UNLIMITED}
        assert form == {"type": "string", "pattern": pattern}
    assert defs["throttle"]["pattern"] == amounts.RATE_PATTERN
    assert defs["burst"]["pattern"] == amounts.SIZE_PATTERN


FITTING = [
    "[defaults]",
    "[clients]",
    f'[clients."{KEY}"]',
    f'[clients."{KEY.upper().replace("NODEKEY", "nodekey")}"]\nallow = true\ndeny = false',
    '[defaults]\nrate = "unlimited"\ndeny = true\nquota = "1 TiB/month"\nrefuse = true',
    f'[clients."{KEY}"]\nlabel = "x"\nrate = "1.5 GiB/s"\nburst = "1 MB"\nquota = "unlimited"',
    f'[clients."{KEY}"]\nquota = "5 GB/day"\nthrottle = "8 kbit/s"\nrefuse = false',
]
UNFIT = [
    "",
    "[client]",
    "defaults = 1",
    "clients = []",
    "[clients.laptop]",
    f'[clients."{KEY}0"]',
    f'clients."{KEY}" = true',
    "[defaults]\nallow = true",
    '[defaults]\nlabel = "x"',
    "[defaults]\nrate = 10",
    '[defaults]\nrate = "10"',
    '[defaults]\ndeny = "yes"',
    '[defaults]\nquota = "5 GB"\nrefuse = true',
    f'[clients."{KEY}"]\nlabel = ""',
    f'[clients."{KEY}"]\nlabel = "{"x" * 65}"',
    f'[clients."{KEY}"]\nallow = false',
    f'[clients."{KEY}"]\nallow = true\ndeny = true',
    f'[clients."{KEY}"]\nrate = "1 Mbit/s"\nburst = "unlimited"',
    f'[clients."{KEY}"]\nquota = "1 B/day"\nthrottle = "unlimited"',
    f'[clients."{KEY}"]\nburts = "1 MB"',
]


@pytest.mark.parametrize("text", FITTING)
def test_what_fits_the_schema_is_read(text: str) -> None:
    assert mismatch(SCHEMA, tomllib.loads(text)) == ""
    parse(text.encode())


@pytest.mark.parametrize("text", UNFIT)
def test_what_does_not_fit_it_is_refused(text: str) -> None:
    assert mismatch(SCHEMA, tomllib.loads(text))
    with pytest.raises(PolicyFormError):
        parse(text.encode())
