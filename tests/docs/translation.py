"""What of README.md README.zh-CN.md translates: a line at its end has a digest for each section.

An English sentence may be reworded at any time; a warning then names the section, until somebody
has looked at its Chinese twin and runs `python -m tests.docs.translation`.
"""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
MARK = re.compile(r"^<!-- translates README\.md: ([0-9a-f ]*) -->\n", re.MULTILINE)


def digests(page: str) -> dict[str, str]:
    """Return a digest of the prose of each section, by its heading; white space is nothing."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {
        heading: hashlib.sha256(" ".join(body.split()).encode()).hexdigest()[:8]
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def translated() -> list[str]:
    """Return the digests that the translation is of, in the order of the sections."""
    found = MARK.search(CHINESE.read_text(encoding="utf-8"))
    assert found, f"{CHINESE.name} does not say what it translates"
    return found[1].split()


def stale() -> list[str]:
    """Return the headings whose prose was changed since it was translated."""
    now = digests(ENGLISH.read_text(encoding="utf-8"))
    return [heading for heading, digest in now.items() if digest not in translated()]


def main() -> None:
    page = MARK.sub("", CHINESE.read_text(encoding="utf-8"))
    marks = " ".join(digests(ENGLISH.read_text(encoding="utf-8")).values())
    CHINESE.write_text(f"{page}<!-- translates README.md: {marks} -->\n", encoding="utf-8")


if __name__ == "__main__":
    main()
