"""Exchanges about the HTTP front end: every way to ask for an upgrade, the other pages, garbage."""

import re

from tests.interop.rawderp import PATIENCE, SERVER, client_info
from tests.interop.stage import Difference, Peer, Stage, scenario
from tests.support.derp import PING, UPGRADE, frame, upgrade_request

FAST = (*UPGRADE, "Derp-Fast-Start: 1")


def raw(stage: Stage, request: bytes, *, body: bool = True, patience: float = PATIENCE) -> Peer:
    """A request as it stands here, and the response to it."""
    peer = stage.connect("alice")
    peer.send(request)
    peer.response(body=body, patience=patience)
    return peer


def goes_on(peer: Peer) -> None:
    """After a 101: the rest of the login."""
    peer.take()
    peer.send(client_info(peer.key, b'{"version":2}', SERVER.public))
    peer.take()
    peer.settle()


UPGRADES = {
    "as derphttp does": UPGRADE,
    "without Connection": ("Upgrade: DERP",),
    "with Connection: close": ("Upgrade: DERP", "Connection: close"),
    "with Connection: keep-alive": ("Upgrade: DERP", "Connection: keep-alive"),
    "in lower case": ("upgrade: derp", "connection: upgrade"),
    "in mixed case": ("UPGRADE: dErP", "CONNECTION: UPGRADE"),
    "to websocket, without a subprotocol": ("Upgrade: websocket", "Connection: Upgrade"),
    "to WebSocket, without Connection": ("Upgrade: WebSocket",),
    "to websocket, with another subprotocol": (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat",
    ),
    "to websocket, the subprotocol in capitals": (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: DERP",
    ),
    "twice, derp first": ("Upgrade: DERP", "Upgrade: foo", "Connection: Upgrade"),
    "with an Ideal-Node": (*UPGRADE, "Ideal-Node: 900a"),
    "with an Origin": (*UPGRADE, "Origin: http://example.com"),
    "with spaces around": ("Upgrade:   DERP  ", "Connection: Upgrade"),
    "with Content-Length: 0": (*UPGRADE, "Content-Length: 0"),
}


def upgrade_scenario(name: str, headers: tuple[str, ...]) -> None:
    @scenario(f"upgrade: {name}")
    def play(stage: Stage) -> None:
        goes_on(raw(stage, upgrade_request(*headers)))


for _name, _headers in UPGRADES.items():
    upgrade_scenario(_name, _headers)

NO_UPGRADES = {
    "none": (),
    "empty": ("Upgrade:", "Connection: Upgrade"),
    "to something else": ("Upgrade: foo", "Connection: Upgrade"),
    "to h2c": ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"),
    "to a list": ("Upgrade: derp, websocket", "Connection: Upgrade"),
    "to DERP/2": ("Upgrade: DERP/2", "Connection: Upgrade"),
    "twice, derp second": ("Upgrade: foo", "Upgrade: DERP", "Connection: Upgrade"),
    "fast start alone": ("Derp-Fast-Start: 1",),
}


def no_upgrade_scenario(name: str, headers: tuple[str, ...]) -> None:
    @scenario(f"no upgrade: {name}")
    def play(stage: Stage) -> None:
        peer = raw(stage, upgrade_request(*headers))
        # The connection goes on.
        peer.send(upgrade_request(path="/derp/probe"))
        peer.response()


for _name, _headers in NO_UPGRADES.items():
    no_upgrade_scenario(_name, _headers)


@scenario("upgrade: other methods and versions")
def upgrade_methods(stage: Stage) -> None:
    for method in ("POST", "PUT", "HEAD", "OPTIONS", "BREW"):
        goes_on(raw(stage, upgrade_request(*UPGRADE).replace(b"GET", method.encode(), 1)))
    for version in (b"HTTP/1.0", b"HTTP/1.2"):
        peer = raw(stage, upgrade_request(*UPGRADE).replace(b"HTTP/1.1", version))
        if stage.transcript[-1].startswith("alice: HTTP 101"):
            goes_on(peer)


@scenario("upgrade: other paths")
def upgrade_paths(stage: Stage) -> None:
    for path in ("/derp?x=1", "/derp?", "http://localhost/derp", "/%64erp"):
        goes_on(raw(stage, upgrade_request(*UPGRADE, path=path)))


@scenario("upgrade: elsewhere is no upgrade")
def upgrade_elsewhere(stage: Stage) -> None:
    for path in ("/derp/probe", "/robots.txt"):
        raw(stage, upgrade_request(*UPGRADE, path=path))


@scenario("upgrade: on the port-80 listener")
def upgrade_port80(stage: Stage) -> None:
    peer = stage.connect("alice", port80=True)
    peer.send(upgrade_request(*UPGRADE))
    peer.response()


@scenario("upgrade: after other requests on the connection")
def upgrade_later(stage: Stage) -> None:
    for tls in (False, True):
        alice = stage.connect("alice", tls=tls)
        for path in ("/derp/probe", "/robots.txt", "/derp"):
            alice.send(upgrade_request(path=path))
            alice.response()
        alice.send(upgrade_request(*FAST))
        alice.greet()
        alice.settle()


@scenario("upgrade: pipelined behind other requests")
def upgrade_pipelined(stage: Stage) -> None:
    alice = stage.connect("alice")
    requests = upgrade_request(path="/derp/probe") + upgrade_request(path="/robots.txt")
    info = client_info(alice.key, b"{}", SERVER.public)
    alice.send(requests + upgrade_request(*FAST) + info + frame(PING, b"12345678"))
    alice.response()
    alice.response()
    alice.take(3)
    alice.settle()


NO_NAMES = {
    "alice: body b''": Difference("alice: body b'{}'", "no names are an empty object of JSON"),
}

PAGES: dict[str, dict[str, Difference]] = {
    "/derp/probe": {},
    "/derp/latency-check": {},
    "/derp/probe?x": {},
    "/generate_204": {},
    "/robots.txt": {},
    "/bootstrap-dns": NO_NAMES,
    "/bootstrap-dns?q=example.com": NO_NAMES,
}


def page_scenario(path: str, differs: dict[str, Difference]) -> None:
    @scenario(f"pages: {path}", differs)
    def play(stage: Stage) -> None:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            stage.note(method)
            request = upgrade_request(path=path).replace(b"GET", method.encode(), 1)
            if method in {"POST", "DELETE"}:
                request = request.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
            raw(stage, request, body=method != "HEAD")


for _name, _differs in PAGES.items():
    page_scenario(_name, _differs)


CHALLENGES = ("a", "Az09.-_:", "ts_derp1.example.com", "x" * 64, "x" * 65, "a b", "a;b", "ä", '"')


@scenario("pages: the captive portal's challenge")
def challenges(stage: Stage) -> None:
    for challenge in CHALLENGES:
        for port80 in (False, True):
            peer = stage.connect("alice", port80=port80)
            header = f"X-Tailscale-Challenge: {challenge}"
            peer.send(upgrade_request(header, path="/generate_204"))
            peer.response()


@scenario("pages: home, whatever the path")
def home(stage: Stage) -> None:
    for path in ("/", "/index.html", "/derp/", "/derp/x", "/derpx", "/favicon.ico", "/?x"):
        peer = stage.connect("alice")
        peer.send(upgrade_request(path=path))
        stage.note(path)
        peer.response(body=False)  # the words are each derper's own


@scenario("pages: for debugging, from loopback")
def debug(stage: Stage) -> None:
    for path in ("/debug/", "/debug/vars", "/debug/varz", "/debug/traffic"):
        peer = stage.connect("alice")
        peer.send(upgrade_request(path=path))
        head = peer.wire.take_response()
        kind = (head.get("content-type") or "").split(";")[0]
        stage.note(f"{path} {head.status} {kind}")


@scenario("pages: what monitors look for")
def for_monitors(stage: Stage) -> None:
    peer = stage.connect("alice")
    peer.send(upgrade_request(path="/debug/check"))
    stage.note(f"{peer.body(peer.wire.take_response())!r}")
    for path in ("/derp/probe", "/derp/latency-check"):
        post = upgrade_request("Content-Length: 0", path=path).replace(b"GET", b"POST", 1)
        peer.send(post)
        stage.note(f"{peer.body(peer.wire.take_response())!r}")
    peer.send(upgrade_request(path="/"))
    page = peer.body(peer.wire.take_response()).decode()
    stage.note(" ".join(re.findall("This is .*? DERP server", re.sub("<[^>]*>", "", page))))


ELSEWHERE = "alice: HTTP 302 https://derp.example.com:80/debug/"


@scenario(
    "pages: the port-80 listener sends people to HTTPS",
    {
        ELSEWHERE: Difference(
            "alice: HTTP 302 https://derp.example.com:80/",
            "/debug/ is only for who asks the relay by a name of its own",
        )
    },
)
def port80_redirect(stage: Stage) -> None:
    for path in ("/", "/x?y=z", "/derp/probe", "/robots.txt", "/a//b", "/%2e"):
        for method in ("GET", "HEAD", "POST"):
            peer = stage.connect("alice", port80=True)
            request = upgrade_request("Content-Length: 0", path=path, host="derp.example.com:80")
            peer.send(request.replace(b"GET", method.encode(), 1))
            stage.note(f"{method} {path}")
            peer.response(body=False)


@scenario("HTTP: keep-alive, and its end")
def keep_alive(stage: Stage) -> None:
    alice = stage.connect("alice")
    for _ in range(3):
        alice.send(upgrade_request(path="/derp/probe"))
        alice.response()
    alice.send(upgrade_request("Connection: close", path="/derp/probe"))
    alice.response()
    alice.end()
    old = stage.connect("alice")
    old.send(b"GET /derp/probe HTTP/1.0\r\n\r\n")
    old.response()
    old.end()


@scenario(
    "HTTP: keep-alive in HTTP/1.0",
    {
        "alice: HTTP 426": Difference(
            "alice: closed without a response", "h11 keeps no connection of HTTP/1.0 open"
        )
    },
)
def keep_alive_old(stage: Stage) -> None:
    old = stage.connect("alice")
    old.send(b"GET /derp/probe HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    old.response()
    old.send(b"GET /derp HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    old.response()


@scenario("HTTP: bodies are read past")
def bodies(stage: Stage) -> None:
    alice = stage.connect("alice")
    for request in (
        upgrade_request("Content-Length: 5", path="/derp/probe") + b"hello",
        upgrade_request("Content-Length: 5", path="/robots.txt") + b"hello",
        upgrade_request("Transfer-Encoding: chunked", path="/derp/probe")
        + b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n",
        upgrade_request("Content-Length: 5", path="/derp") + b"hello",
        upgrade_request(path="/derp/probe"),
    ):
        alice.send(request)
        alice.response()


BAD_REQUESTS = {
    "no Host": b"GET /derp/probe HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a bad Host": b"GET /derp/probe HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a space before the colon": b"GET /derp/probe HTTP/1.1\r\nHost : a\r\n\r\n",
    "a header without a colon": b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n",
    "a header without a name": b"GET /derp/probe HTTP/1.1\r\nHost: a\r\n: foo\r\n\r\n",
    "NUL in a header": b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "two lengths": upgrade_request("Content-Length: 1", "Content-Length: 2") + b"xx",
    "a negative length": upgrade_request("Content-Length: -1"),
    "a length in words": upgrade_request("Content-Length: ten"),
    "an unknown coding": upgrade_request("Transfer-Encoding: gzip"),
    "no version": b"GET /derp/probe\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "an unknown protocol": b"GET /derp/probe FTP/1.1\r\nHost: a\r\n\r\n",
    "only words": b"hello there, relay\r\n\r\n",
    "TLS": bytes.fromhex("16030100050100000100") + b"\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "blank lines": b"\r\n\r\n\r\n",
    "DERP without HTTP": frame(PING, b"12345678") + b"\r\n\r\n",
    "a path without a slash": b"GET derp/probe HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unfinished escape": b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a lower-case method": b"get /derp/probe HTTP/1.1\r\nHost: a\r\n\r\n",
    "a folded header": b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "bare line feeds": b"GET /derp/probe HTTP/1.1\nHost: a\n\n",
    "a blank line first": b"\r\nGET /derp/probe HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /derp/probe  HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path to clean": b"GET //derp/../derp/probe HTTP/1.1\r\nHost: a\r\n\r\n",
    "an expectation": upgrade_request("Expect: 100-continue", path="/derp/probe"),
    "an unknown expectation": upgrade_request("Expect: miracles", path="/derp/probe"),
}


BAD_REQUEST_DIFFERS = {
    "HTTP/2": {
        "alice: HTTP 400": Difference("alice: HTTP 505", "a version not spoken here, like others")
    },
    "SSH": {
        "alice: HTTP 400": Difference(
            "alice: (no response)",
            "h11 judges a head when it is whole; the time limit ends what never is",
        )
    },
    "CONNECT": {
        "alice: HTTP 404": Difference("alice: HTTP 403", "as the Go derper answers over TLS")
    },
}


def bad_request_scenario(name: str, request: bytes) -> None:
    @scenario(f"bad request: {name}", BAD_REQUEST_DIFFERS.get(name))
    def play(stage: Stage) -> None:
        # Ours waits for a whole head: not for long, then, where none comes.
        raw(stage, request, patience=3 if name == "SSH" else PATIENCE)


for _name, _request in BAD_REQUESTS.items():
    bad_request_scenario(_name, _request)


HEAD_LIMIT = "16 KiB are plenty, and cost less from a stranger"


@scenario(
    "bad request: a header of 900 KiB",
    {
        "alice: HTTP 200 access-control-allow-origin: *": Difference("alice: HTTP 431", HEAD_LIMIT),
        "alice: body b''": Difference((), HEAD_LIMIT),
    },
)
def large_header(stage: Stage) -> None:
    raw(stage, upgrade_request("X: " + "x" * (900 << 10), path="/derp/probe"))


@scenario("bad request: a header without an end")
def endless_header(stage: Stage) -> None:
    peer = stage.connect("alice")
    peer.send(b"GET /derp HTTP/1.1\r\nHost: a\r\nX: ")
    for _ in range(2 << 4):
        peer.send(b"x" * (64 << 10))
    peer.response(body=False)


@scenario("bad request: hang up within it")
def hang_up_within(stage: Stage) -> None:
    request = upgrade_request(*UPGRADE)
    for end in (1, 3, 4, 20, len(request) - 2):
        peer = stage.connect("alice")
        peer.send(request[:end])
        peer.close()
    stage.login("bob").settle()
