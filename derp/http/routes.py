"""The answer to each path. Sans-I/O.

Paths, status codes and headers are those of cmd/derper, derpserver.Handler and tsweb:

    /derp                       leave HTTP for DERP, or 426
    /derp/probe                 200: how clients without UDP measure latency
    /derp/latency-check         the same under the name that older clients know
    /generate_204               204: is there a captive portal in the way?
    /bootstrap-dns              addresses of a few names
    /robots.txt                 nothing to index here
    /debug/                     for loopback and tailnet: vars, varz, check, traffic; and the
                                live page (derp.http.liveroutes)
    anything else               the home page

A path with `//`, `/./` or `/../` is redirected (307) to the clean path, as Go's ServeMux does, so
that no path has two names. On the plain port beside TLS, `route_plain` redirects all to https but
/generate_204, /debug and, with certificates by ACME, /.well-known/acme-challenge/.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import quote, unquote

import attrs

from derp.http import liveroutes, pages
from derp.http.backend import Backend
from derp.http.message import Answer, Later, Request, Response, Stream, Upgrade
from derp.http.pages import BROWSER_HEADERS
from derp.http.steer import stream_refusal

_ECHOABLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:")
ACME_PREFIX = "/.well-known/acme-challenge/"
_URL_SAFE = "/?%:@!$&'()*+,;=-._~[]#"

_PROMETHEUS = "text/plain;version=0.0.4;charset=utf-8"
_JSON = "application/json; charset=utf-8"
_HTML = ("Content-Type", "text/html; charset=utf-8")
_TEXT = ("Content-Type", "text/plain; charset=utf-8")

# The Go derper's words, which monitors look for, without a newline.
_CONSISTENT = "derp.Server ConsistencyCheck okay"
_BOGUS_METHOD = "bogus probe method"


def route(relay: Backend, request: Request) -> Answer:
    """Answer `request` on the main port."""
    path = request.path
    if request.method == "CONNECT":
        return _text(403, "CONNECT not enabled")
    if path == "*":
        return Response(200)
    clean = clean_path(path)
    if clean == "/debug":
        clean = "/debug/"
    if clean != path:
        return _redirect(request, 307, clean + (f"?{request.query}" if request.query else ""))
    if "%" in path:
        path = "/".join(
            segment if "%2f" in segment.lower() else unquote(segment) for segment in path.split("/")
        )
    if path.startswith("/debug/"):
        return _debug(relay, request, path)
    return _HANDLERS.get(path, _home)(relay, request)


def route_plain(relay: Backend, request: Request) -> Answer:
    """Answer `request` on the plain port beside TLS (tsweb.Port80Handler)."""
    path = request.path
    if request.method == "CONNECT" or path == "*" or clean_path(path) != path:
        return route(relay, request)
    if path == "/generate_204" or path.startswith("/debug"):
        return route(relay, request)
    if relay.challenges is not None and path.startswith(ACME_PREFIX):
        return _acme_challenge(relay.challenges, path.removeprefix(ACME_PREFIX))
    if request.method not in {"GET", "HEAD"}:
        return _text(400, "Use HTTPS")
    if path == "/" and not request.query and relay.debug_access.allows(request):
        path = "/debug/"
    query = f"?{request.query}" if request.query else ""
    return _redirect(request, 302, f"https://{request.host or relay.hostname}{path}{query}")


def _acme_challenge(challenges: Mapping[str, str], token: str) -> Answer:
    """Answer an http-01 challenge (RFC 8555, 8.3)."""
    body = challenges.get(token)
    if body is None:
        return _text(404, "no such challenge")
    return Response(200, (("Content-Type", "application/octet-stream"),), body.encode())


def clean_path(path: str) -> str:
    """Return `path` without empty, `.` and `..` segments; a final slash stays."""
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    slash = "/" if path.endswith("/") and kept else ""
    return f"/{'/'.join(kept)}{slash}"


def _derp(relay: Backend, request: Request) -> Answer:
    if not relay.derp:
        return _text(404, "derp server disabled")
    protocol = request.header(b"upgrade").lower()
    if protocol not in {"derp", "websocket"}:
        # A 426 has to name the protocol (RFC 9110, 15.5.22).
        headers = (("Upgrade", "DERP"), ("Connection", "Upgrade"))
        return _text(426, "DERP requires connection upgrade", *headers)
    if request.has_body:
        return _text(400, "an upgrade has no body")
    # The oldest clients say websocket and mean DERP; the subprotocol tells.
    websocket = protocol == "websocket" and "derp" in request.header(b"sec-websocket-protocol")
    if websocket and (refusal := _websocket_refusal(request)) is not None:
        return refusal
    fast_start = not websocket and request.header(b"derp-fast-start") == "1"
    ideal_node = request.header(b"ideal-node")
    return Upgrade(
        websocket=websocket,
        fast_start=fast_start,
        ideal_node=ideal_node if ideal_node.isprintable() else "",
        answer=b"" if websocket or fast_start else relay.upgrade_answer,
    )


def _websocket_refusal(request: Request) -> Response | None:
    """Check a handshake by RFC 6455, 4.2.1; return the answer to an invalid one."""
    connection = {token.lower() for token in request.tokens(b"connection")}
    if request.version == "1.0" or "upgrade" not in connection:
        headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
        return _text(426, "a websocket handshake needs Connection: Upgrade and HTTP/1.1", *headers)
    if request.method != "GET":
        return _text(405, "a websocket handshake is a GET", ("Allow", "GET"))
    if request.header(b"sec-websocket-version") != "13":
        return _text(400, "the websocket version must be 13", ("Sec-WebSocket-Version", "13"))
    keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
    try:
        nonces = [base64.b64decode(key, validate=True) for key in keys]
    except binascii.Error:
        nonces = []
    if [len(nonce) for nonce in nonces] != [16]:
        return _text(400, "a websocket handshake has one Sec-WebSocket-Key of 16 bytes in base64")
    if "derp" not in request.tokens(b"sec-websocket-protocol"):
        return _text(400, "the only websocket subprotocol here is derp")
    return None


def _probe(_relay: Backend, request: Request) -> Answer:
    if request.method not in {"GET", "HEAD"}:
        return _text(405, _BOGUS_METHOD, ("Allow", "GET, HEAD"))
    return Response(200, (("Access-Control-Allow-Origin", "*"),))


def _generate_204(_relay: Backend, request: Request) -> Answer:
    headers = [("Cache-Control", "no-cache, no-store, must-revalidate, no-transform, max-age=0")]
    challenge = request.header(b"x-tailscale-challenge")
    if challenge and len(challenge) <= 64 and _ECHOABLE.issuperset(challenge):
        headers.append(("X-Tailscale-Response", f"response {challenge}"))
    return Response(204, headers)


def _bootstrap_dns(relay: Backend, request: Request) -> Answer:
    # Each client asks once, so that an open connection is of no use.
    headers = (*BROWSER_HEADERS, ("Content-Type", "application/json"), ("Connection", "close"))
    return Response(200, headers, relay.bootstrap_dns.answer(request.query, request.remote))


def _robots(_relay: Backend, _request: Request) -> Answer:
    return Response(200, (*BROWSER_HEADERS, _TEXT), b"User-agent: *\nDisallow: /\n")


def _home(relay: Backend, request: Request) -> Answer:
    if relay.home not in {"", "blank"}:
        return _redirect(request, 302, relay.home, *BROWSER_HEADERS)
    body = b""
    if not relay.home:
        body = pages.home(derp=relay.derp, debug=relay.debug_access.allows(request))
    return Response(200, (*BROWSER_HEADERS, _HTML), body)


def _show_text(content_type: str, text: str) -> Response:
    return Response(200, (*BROWSER_HEADERS, ("Content-Type", content_type)), text.encode())


def _show_problems(problems: Sequence[str]) -> Response:
    body = "".join(f"{line}\n" for line in problems) or _CONSISTENT
    return Response(500 if problems else 200, (*BROWSER_HEADERS, _TEXT), body.encode())


_DEBUG_PAGES: dict[str, Callable[[Backend], Answer]] = {
    "/debug/varz": lambda relay: Later(relay.varz, partial(_show_text, _PROMETHEUS)),
    "/debug/vars": lambda relay: Later(relay.expvars, partial(_show_text, _JSON)),
    "/debug/check": lambda relay: Later(relay.problems, _show_problems),
    "/debug/traffic": lambda relay: Stream((*BROWSER_HEADERS, _TEXT), relay.traffic),
}


def _debug(relay: Backend, request: Request, path: str) -> Answer:
    if refusal := relay.debug_access.refusal(request):
        return _text(403, refusal)
    if (page := _DEBUG_PAGES.get(path)) is not None:
        answer: Answer | None = page(relay)
        if isinstance(answer, Stream):
            answer = stream_refusal(request) or answer
    else:
        answer = liveroutes.answer(relay, request, path)
    if isinstance(answer, Stream):
        # It may outlast the key by which it was asked for.
        return attrs.evolve(answer, is_allowed=partial(relay.debug_access.allows, request))
    return answer or _text(404, "no such page")


_HANDLERS: dict[str, Callable[[Backend, Request], Answer]] = {
    "/derp": _derp,
    "/derp/probe": _probe,
    "/derp/latency-check": _probe,
    "/generate_204": _generate_204,
    "/bootstrap-dns": _bootstrap_dns,
    "/robots.txt": _robots,
}


def _text(status: int, message: str, *headers: tuple[str, str]) -> Response:
    fixed = (_TEXT, ("X-Content-Type-Options", "nosniff"))
    return Response(status, (*headers, *fixed), f"{message}\n".encode())


def _redirect(request: Request, status: int, location: str, *headers: tuple[str, str]) -> Response:
    """Redirect to `location`, in which characters that a URL may not have are escaped.

    Above all backslashes: browsers read them as slashes, and what follows two of them as a host.
    """
    location = quote(location, safe=_URL_SAFE)
    if request.method not in {"GET", "HEAD"}:
        return Response(status, (*headers, ("Location", location)))
    return Response(
        status, (*headers, ("Location", location), _HTML), pages.redirect_body(location)
    )
