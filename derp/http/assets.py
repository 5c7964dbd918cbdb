"""The files of the live page, in `live/`: read once, so that all of them are of one version."""

from pathlib import Path
from string import Template
from typing import Final, NamedTuple

_FOLDER: Final = Path(__file__).with_name("live")

PAGE: Final = Template((_FOLDER / "page.html").read_text("utf-8"))
"""The page; `derp.http.livepage` fills it in."""


class Asset(NamedTuple):
    """A file that a browser asks for."""

    content_type: str
    content: bytes


ASSETS: Final = {
    f"/debug/{name}": Asset(content_type, (_FOLDER / name).read_bytes())
    for name, content_type in (
        ("live.css", "text/css; charset=utf-8"),
        ("live.js", "text/javascript; charset=utf-8"),
        ("live.svg", "image/svg+xml"),
    )
}
"""By their paths."""
