"""The HTML pages. Sans-I/O."""

from collections.abc import Iterable
from typing import Final

_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}
)

_HOME = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>DERP</title></head>
<body>
<h1>DERP</h1>
<p>This is a <a href="https://tailscale.com/">Tailscale</a> DERP server.</p>
<p>It relays encrypted packets between clients that can't reach each other directly, and helps them
find a direct path by STUN. It can't read what it relays.</p>
{notes}<ul>
<li><a href="https://tailscale.com/kb/1232/derp-servers">What DERP servers are</a></li>
<li><a href="https://pkg.go.dev/tailscale.com/derp">The DERP protocol</a></li>
</ul>
</body>
</html>
"""

_DEBUG = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>derper debug</title></head>
<body>
<h1>derper debug</h1>
<ul>
{items}</ul>
</body>
</html>
"""

_DEBUG_PAGES = (
    ("/debug/vars", "metrics, as JSON"),
    ("/debug/varz", "metrics, in the Prometheus text format"),
    ("/debug/check", "whether the relay's tables agree with each other"),
    ("/debug/traffic", "clients with traffic, every two seconds"),
)


def home(*, derp: bool, debug: bool) -> bytes:
    """Return the home page; `derp` is as in -derp, `debug` is whether /debug/ may be seen."""
    notes = ""
    if not derp:
        notes += "<p>Relaying is <b>disabled</b> here.</p>\n"
    if debug:
        notes += '<p>You may look <a href="/debug/">inside</a>.</p>\n'
    return _HOME.format(notes=notes).encode()


def debug_index(rows: Iterable[tuple[str, str]]) -> bytes:
    """Return /debug/: `rows` as a list of names and values, then links to the other pages."""
    items = [f"<li><b>{escape(name)}:</b> {escape(value)}</li>\n" for name, value in rows]
    items += [
        f'<li><a href="{path}">{path}</a> ({escape(text)})</li>\n' for path, text in _DEBUG_PAGES
    ]
    return _DEBUG.format(items="".join(items)).encode()


def redirect_body(location: str) -> bytes:
    """Return the body of a redirect: a link, for clients that don't follow redirects."""
    return f'See <a href="{escape(location)}">{escape(location)}</a>.\n'.encode()


def escape(text: str) -> str:
    """Return `text` as html.escape does; module html would also load a table of all entities."""
    return text.translate(_ESCAPES)
