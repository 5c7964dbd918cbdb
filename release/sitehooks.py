"""Changes of the site's pages that mkdocs calls for (mkdocs.yml names this file)."""

import re
from typing import Any, Final

_CELL: Final = re.compile(r"<td\b.*?</td>", re.DOTALL)
_CODE: Final = re.compile(r"<code>([^<]*)</code>")
_LANGUAGE: Final = re.compile(r"\.([a-z]{2}-[A-Z]{2})\.md$")


def on_page_content(html: str, **_: Any) -> str:
    """Let long names in tables break behind `_` and `/`, and nowhere else (site.css)."""
    return _CELL.sub(lambda cell: _CODE.sub(_with_breaks, cell[0]), html)


def _with_breaks(code: re.Match[str]) -> str:
    return f"<code>{re.sub(r'(?<=[_/])(?=[A-Za-z])', '<wbr>', code[1])}</code>"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Have a translation say its language: fonts, and what reads aloud, go by it."""
    return in_language(output, page.file.src_uri)


def in_language(output: str, path: str) -> str:
    """Return a page that says the language of its file's name, as README.zh-CN.md."""
    if found := _LANGUAGE.search(path):
        return output.replace('<html lang="en"', f'<html lang="{found[1]}"', 1)
    return output
