"""The requests of Tailscale's clients, which a hidden relay answers as any other. Sans-I/O.

    GET /derp                 Upgrade: DERP (derphttp.Client), or a websocket of the protocol derp
    GET /derp/latency-check   latency by HTTPS, where UDP is blocked (netcheck)
    HEAD /derp/probe          the same, asked by a browser for a page of another origin (netcheck)
    GET /generate_204         with a challenge: is there a captive portal? (captivedetection)
    GET /bootstrap-dns?q=     addresses of a name (dnsfallback), if there are names to tell

Besides, those who may see /debug/ do, and an authority's challenge is answered on the plain port.
"""

from typing import Final

from derp.http import routes
from derp.http.backend import Backend
from derp.http.hidden.answers import page
from derp.http.message import Answer, Request, Response, Upgrade

_GO: Final = "Go-http-client/"
"""How the User-Agent of Go's net/http begins."""

_NOT_FOUND: Final = Response(404, (("Server", "nginx"), ("Content-Type", "text/html")), page(404))


def is_from_client(relay: Backend, request: Request, *, plain: bool = False) -> bool:
    """Return whether only a client, or one who may see /debug/, would make a request.

    Nothing is counted or spent by this: the request is routed afterwards. `plain` is for the plain
    port beside HTTPS.
    """
    path = request.path
    if path == "/debug" or path.startswith("/debug/"):
        return relay.debug_access.allows(request)
    if _is_challenge(path, plain=plain):
        return path.removeprefix(routes.ACME_PREFIX) in (relay.challenges or {})
    asks = _ASKS.get((request.method, path))
    if asks is None or request.has_body or not asks(relay, request):
        return False
    if plain:
        return path == "/generate_204"
    return path != "/derp" or isinstance(routes.route(relay, request), Upgrade)


def route(relay: Backend, request: Request, *, plain: bool = False) -> Answer:
    """Answer a request: a client's as any relay does, all others with 404."""
    if not is_from_client(relay, request, plain=plain):
        return _NOT_FOUND
    if _is_challenge(request.path, plain=plain):
        return routes.route_plain(relay, request)
    return routes.route(relay, request)


def _is_challenge(path: str, *, plain: bool) -> bool:
    return plain and path.startswith(routes.ACME_PREFIX)


def _asks_for_derp(_relay: Backend, request: Request) -> bool:
    if "upgrade" not in {token.lower() for token in request.tokens(b"connection")}:
        return False
    protocol = request.header(b"upgrade").lower()
    # A websocket without the subprotocol is one of the oldest clients, or anybody.
    return protocol == "derp" or "derp" in request.tokens(b"sec-websocket-protocol")


def _asks_as_go(_relay: Backend, request: Request) -> bool:
    own_agent = request.header(b"user-agent").startswith(_GO)
    return own_agent and request.header(b"accept-encoding") == "gzip"


def _asks_for_a_name(relay: Backend, request: Request) -> bool:
    names = relay.bootstrap_dns
    has_names = bool(names.published or names.unpublished)
    return has_names and request.query.startswith("q=") and _asks_as_go(relay, request)


def _asks_from_another_origin(_relay: Backend, request: Request) -> bool:
    return request.header(b"origin") != ""


def _has_challenge(_relay: Backend, request: Request) -> bool:
    return request.header(b"x-tailscale-challenge") != ""


_ASKS: Final = {
    ("GET", "/derp"): _asks_for_derp,
    ("GET", "/derp/latency-check"): _asks_as_go,
    ("HEAD", "/derp/probe"): _asks_from_another_origin,
    ("GET", "/generate_204"): _has_challenge,
    ("GET", "/bootstrap-dns"): _asks_for_a_name,
}
"""By method and path: whether a request is a client's."""
