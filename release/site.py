"""The pages of the site: the repository's Markdown, and what it links to, laid out for mkdocs.

`python -m release.site` fills build/pages, with the paths of the repository, so that every link
works here, on a forge and on the site. A folder that is linked to becomes a page that lists it.
`python -m release.site check` then looks for what the pages would have a browser fetch elsewhere.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = ROOT / "build" / "pages"
SITE: Final = ROOT / "build" / "site"
STYLE: Final = Path(__file__).with_name("site.css")

_LINK: Final = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FETCHED: Final = re.compile(
    r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="((?:https?:)?//[^"]+)"'
)
_CODE: Final = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def markdown(root: Path = ROOT) -> list[Path]:
    """Return the Markdown of the repository that is for readers: at its root, and in docs."""
    return sorted([*root.glob("*.md"), *(root / "docs").glob("*.md")])


def linked(page: Path) -> Iterator[Path]:
    """Yield the files and folders that a page links to, as far as they are there."""
    for target, _anchor in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
        path = (page.parent / target).resolve()
        if "://" not in target and path.exists():
            yield path


def lay_out(root: Path = ROOT, pages: Path = PAGES) -> None:
    """Fill `pages`, anew. Raises OSError."""
    shutil.rmtree(pages, ignore_errors=True)
    found = markdown(root)
    for source in found:
        text = source.read_text("utf-8")
        for folder in {path for path in linked(source) if path.is_dir()}:
            text = _to_listing(text, source, folder)
        _write(pages / source.relative_to(root), text)
    for path in sorted({path for source in found for path in linked(source)} - {*found}):
        if path.is_dir():
            _list(path, root, pages)
        else:
            _copy(path, root, pages)
    shutil.copyfile(STYLE, pages / STYLE.name)


def _to_listing(text: str, page: Path, folder: Path) -> str:
    """Return the page's text with its links to a folder leading to the folder's list."""

    def lead(match: re.Match[str]) -> str:
        target = match[1]
        if (page.parent / target).resolve() != folder:
            return match[0]
        return f"]({target.rstrip('/')}/index.md)"

    return _LINK.sub(lead, text)


def _list(folder: Path, root: Path, pages: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in files]
    lines = [f"# {folder.relative_to(root)}", "", *(f"- [{name}]({name})" for name in names)]
    _write(pages / folder.relative_to(root) / "index.md", "\n".join([*lines, ""]))
    for path in files:
        _copy(path, root, pages)


def _copy(path: Path, root: Path, pages: Path) -> None:
    target = pages / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")


def foreign(site: Path = SITE) -> list[str]:
    """Return the addresses elsewhere that a browser would fetch for the pages of the site."""
    pages = [path.read_text("utf-8") for path in site.rglob("*.html")]
    if not pages:
        raise FileNotFoundError(f"{site} has no pages")
    return sorted({address for page in pages for address in _FETCHED.findall(page)})


def main() -> None:
    """Lay out the pages, or check the site that was made of them."""
    match sys.argv[1:]:
        case []:
            lay_out()
        case ["check"]:
            if found := foreign():
                sys.exit(f"the site has a browser fetch {', '.join(found)}")
        case _:
            sys.exit("usage: python -m release.site [check]")


if __name__ == "__main__":
    main()
