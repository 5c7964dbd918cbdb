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
from derp.http.hidden.answers import page
from derp.http.message import Answer, Request, Response, Upgrade
from derp.http.statussource import StatusSource

_GO: Final = "Go-http-client/"
"""How the User-Agent of Go's net/http begins."""

_NOT_FOUND: Final = Response(404, (("Server", "nginx"), ("Content-Type", "text/html")), page(404))


def answer_of(relay: StatusSource, request: Request, *, plain: bool = False) -> Answer | None:
    """Return the answer to a request that only a client, or who may see /debug/, would make.

    None for any other. `plain` is for the plain port beside HTTPS.
    """
    path = request.path
    if path == "/debug" or path.startswith("/debug/"):
        return routes.route(relay, request) if relay.debug_access.allows(request) else None
    if plain and path.startswith(routes.ACME_PREFIX):
        token = path.removeprefix(routes.ACME_PREFIX)
        return routes.route_plain(relay, request) if token in (relay.challenges or {}) else None
    asks = _ASKS.get((request.method, path))
    if asks is None or request.has_body or not asks(relay, request):
        return None
    if plain and path != "/generate_204":
        return None
    answer = routes.route(relay, request)
    if path == "/derp" and not isinstance(answer, Upgrade):
        return None
    return answer


def route(relay: StatusSource, request: Request, *, plain: bool = False) -> Answer:
    """Answer a request on a connection that was a client's already."""
    return answer_of(relay, request, plain=plain) or _NOT_FOUND


def _asks_for_derp(_relay: StatusSource, request: Request) -> bool:
    if "upgrade" not in {token.lower() for token in request.tokens(b"connection")}:
        return False
    protocol = request.header(b"upgrade").lower()
    # A websocket without the subprotocol is one of the oldest clients, or anybody.
    return protocol == "derp" or "derp" in request.tokens(b"sec-websocket-protocol")


def _asks_as_go(_relay: StatusSource, request: Request) -> bool:
    own_agent = request.header(b"user-agent").startswith(_GO)
    return own_agent and request.header(b"accept-encoding") == "gzip"


def _asks_for_a_name(relay: StatusSource, request: Request) -> bool:
    names = relay.bootstrap_dns
    has_names = bool(names.published or names.unpublished)
    return has_names and request.query.startswith("q=") and _asks_as_go(relay, request)


def _asks_from_another_origin(_relay: StatusSource, request: Request) -> bool:
    return request.header(b"origin") != ""


def _has_challenge(_relay: StatusSource, request: Request) -> bool:
    return request.header(b"x-tailscale-challenge") != ""


_ASKS: Final = {
    ("GET", "/derp"): _asks_for_derp,
    ("GET", "/derp/latency-check"): _asks_as_go,
    ("HEAD", "/derp/probe"): _asks_from_another_origin,
    ("GET", "/generate_204"): _has_challenge,
    ("GET", "/bootstrap-dns"): _asks_for_a_name,
}
"""By method and path: whether a request is a client's."""
