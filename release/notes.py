"""The text of a release: its section of CHANGELOG.md.

`python -m release.notes TAG` prints it, for a tag such as v0.2.0; and refuses a tag that the tree
is not ready for.
"""

import re
import sys
from collections.abc import Sequence
from datetime import date

from release.project import ROOT, VERSION, ReleaseError


def notes(tag: str, version: str, changelog: str) -> str:
    """Return the section for a tag, without its heading. Raises ReleaseError if it is not ready."""
    if tag != f"v{version}":
        has = f"derp/__init__.py has version {version}"
        raise ReleaseError(f"{tag}: {has}; want the tag v{version}, or set __version__")
    sections = re.split(r"(?m)^## (.+)\n", changelog)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    if "Unreleased" not in found:
        raise ReleaseError("CHANGELOG.md has no section Unreleased; put an empty one on top")
    if found["Unreleased"].strip():
        raise ReleaseError(f"CHANGELOG.md has unreleased changes; move them to {version}")
    for heading, body in found.items():
        named = re.fullmatch(rf"{re.escape(version)} - (\d{{4}}-\d\d-\d\d)", heading)
        if named and body.strip():
            date.fromisoformat(named[1])
            return body.strip() + "\n"
    raise ReleaseError(
        f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD` that says something"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the text for the tag that is named; return the exit code."""
    try:
        (tag,) = arguments
        text = notes(tag, VERSION, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    except ValueError as error:
        sys.stderr.write(f"release: {error}; want one tag, and a day of the calendar\n")
        return 1
    except ReleaseError as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
