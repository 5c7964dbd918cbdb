"""The answers to the paths of the live page. Sans-I/O.

    /debug/           the page, as HTML
    /debug/events     what changes on it, as server-sent events
    /debug/steer      what its buttons do
    /debug/live.…     its script, style and icon

The query of the first two may ask for an order of the clients, as `sort=name`. With a `debugkey`,
by which access may have been granted, the page asks for all else with that, too.
"""

from functools import partial
from urllib.parse import parse_qsl, urlencode

from derp.http.assets import ASSETS
from derp.http.backend import Backend
from derp.http.livepage import UNSTEERED, PageOptions
from derp.http.liveview import DEFAULT_SORT, SORTS
from derp.http.message import Answer, Later, Posted, Reply, Request, Response, Stream
from derp.http.pages import BROWSER_HEADERS
from derp.http.steer import MAX_BODY, Outcome, parse_command, stream_refusal

_HTML = ("Content-Type", "text/html; charset=utf-8")
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_EVENTS = ("Content-Type", "text/event-stream; charset=utf-8")
_FRESH = ("Cache-Control", "no-store")
_HTTPS_ONLY = "The operator's token is for https only: ask by https."
_KEY_ONLY = (
    "The debug key is for looking only. To disconnect, deny or allow clients, open this page from "
    "this machine or the tailnet, not through a proxy."
)
_UNBUFFERED = ("X-Accel-Buffering", "no")
"""Has nginx pass on each event at once, where the page is shown through it by the debug key."""


def answer(relay: Backend, request: Request, path: str) -> Answer | None:
    """Answer a request from one who has access; None where `path` is no path of the live page."""
    if (asset := ASSETS.get(path)) is not None:
        headers = (*BROWSER_HEADERS, ("Content-Type", asset.content_type), _FRESH)
        return Response(200, headers, asset.content)
    if path == "/debug/":
        return Later(partial(relay.page, page_options(relay, request)), _show_page)
    if path == "/debug/events":
        return _events(relay, request)
    if path == "/debug/steer":
        if relay.debug_access.is_overheard(request):
            return _text(403, _HTTPS_ONLY)
        return relay.operator.refusal(request) or Posted(
            MAX_BODY, partial(_steer, relay, request.remote)
        )
    return None


def _events(relay: Backend, request: Request) -> Answer:
    if refusal := stream_refusal(request):
        return refusal
    # An image, script or frame of a page asks for something else.
    if "text/event-stream" not in request.header(b"accept").lower():
        return _text(406, "want Accept: text/event-stream")
    chunks = partial(relay.events, page_options(relay, request).sort)
    return Stream((*BROWSER_HEADERS, _EVENTS, _FRESH, _UNBUFFERED), chunks)


def page_options(relay: Backend, request: Request) -> PageOptions:
    """Return how a request asks for the page."""
    fields = dict(reversed(parse_qsl(request.query, errors="surrogateescape")))
    sort = fields.get("sort", "")
    key = {name: value for name, value in fields.items() if name == "debugkey"}
    return PageOptions(
        hostname=relay.hostname,
        sort=sort if sort in SORTS else DEFAULT_SORT,
        query=urlencode(key, errors="surrogateescape"),
        locked=_locked(relay, request),
    )


def _locked(relay: Backend, request: Request) -> str:
    """Return why whoever made a request can't steer; empty if the operator's token can."""
    if not relay.operator.has_token:
        return UNSTEERED
    if relay.debug_access.is_overheard(request):
        return _HTTPS_ONLY
    if relay.debug_access.refusal_without_key(request):
        return _KEY_ONLY
    return ""


def _show_page(page: bytes) -> Response:
    return Response(200, (*BROWSER_HEADERS, _HTML), page)


def _steer(relay: Backend, remote: str, body: bytes) -> Reply:
    try:
        command = parse_command(body)
    except ValueError as error:
        return _text(400, str(error))
    return Later(partial(relay.steer, command, remote), _show_outcome)


def _show_outcome(outcome: Outcome) -> Response:
    return _text(200 if outcome.done else 409, outcome.said)


def _text(status: int, message: str) -> Response:
    headers = (*BROWSER_HEADERS, _TEXT, _FRESH)
    return Response(status, headers, f"{message}\n".encode())
