"""A tag is refused until the tree is ready for it; then it has a text."""

import pytest

from release.notes import notes
from release.project import ReleaseError

READY = """\
# Changelog

## Unreleased

## 0.2.0 - 2026-12-01

### Added

- A thing.

## 0.1.0 - 2026-11-01

- The rest.
"""


def test_the_text_is_the_section_of_the_version() -> None:
    assert notes("v0.2.0", "0.2.0", READY) == "### Added\n\n- A thing.\n"
    assert notes("v0.1.0", "0.1.0", READY) == "- The rest.\n"


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "told"),
    [
        ("v0.2.0", "0.1.0", READY, "v0.2.0: derp/__init__.py has version 0.1.0"),
        ("0.2.0", "0.2.0", READY, "want the tag v0.2.0"),
        ("v0.3.0", "0.3.0", READY, "no section `## 0.3.0 - "),
        ("v0.2.0", "0.2.0", READY.replace("Unreleased", "0.3.0"), "no section Unreleased"),
        ("v0.2.0", "0.2.0", READY.replace("ased\n", "ased\n\n- More.\n", 1), "move them to 0.2.0"),
        ("v0.2.0", "0.2.0", READY.replace(" - 2026-12-01", ""), "no section"),
        ("v0.1.0", "0.1.0", READY.replace("- The rest.", ""), "no section"),
    ],
)
def test_what_is_not_ready_is_told(tag: str, version: str, changelog: str, told: str) -> None:
    with pytest.raises(ReleaseError, match=told.replace("(", r"\(")):
        notes(tag, version, changelog)


def test_a_day_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="day"):
        notes("v0.2.0", "0.2.0", READY.replace("2026-12-01", "2026-12-32"))
