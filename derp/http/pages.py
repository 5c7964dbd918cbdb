"""The HTML of the home page and of redirects, and the headers of all pages. Sans-I/O."""

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

BROWSER_HEADERS: Final = (
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
    (
        "Content-Security-Policy",
        (
            "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; "
            "block-all-mixed-content; object-src 'none'"
        ),
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
)
"""The headers of tsweb.AddBrowserHeaders."""


def home(*, derp: bool, debug: bool) -> bytes:
    """Return the home page; `derp` is as in -derp, `debug` is whether /debug/ may be seen."""
    notes = ""
    if not derp:
        notes += "<p>Relaying is <b>disabled</b> here.</p>\n"
    if debug:
        notes += '<p>You may look <a href="/debug/">inside</a>.</p>\n'
    return _HOME.format(notes=notes).encode()


def redirect_body(location: str) -> bytes:
    """Return the body of a redirect: a link, for clients that don't follow redirects."""
    return f'See <a href="{escape(location)}">{escape(location)}</a>.\n'.encode()


def escape(text: str) -> str:
    """Return `text` as html.escape does; module html would also load a table of all entities."""
    return text.translate(_ESCAPES)
