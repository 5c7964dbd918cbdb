"""Our answers beside those of the Go derper.

go_answers.json was recorded from cmd/derper v1.102.5 on loopback, four of them:

    main      -a 127.0.0.1:P -http-port -1 -stun=false
    plain     the -http-port of one with -certmode manual -hostname 127.0.0.1
    disabled  as main, with -derp=false -home blank
    redirect  as main, with -home https://example.com/x and -bootstrap-dns-names localhost

Date, Content-Length, Transfer-Encoding and Connection are left out, and of bodies only is noted
whether there was one: theirs are their words. BROWSER and DEBUG stand for the headers that tsweb
adds to pages, DEBUG with a policy that allows styles.
"""

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from derp.errors import HTTPFailed
from derp.http.backend import Backend
from derp.http.bootstrap_dns import Record
from derp.http.routes import route, route_plain
from derp.http.server import serve
from derp.net.address import Endpoint
from tests.http.sites import make_backend
from tests.memory_transport import memory_pair

GO_ANSWERS = json.loads(Path(__file__).with_name("go_answers.json").read_text())

POLICY = (
    "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; "
    "block-all-mixed-content; object-src 'none'"
)
PLAIN = "Content-Type: text/plain; charset=utf-8"
NOSNIFF = "X-Content-Type-Options: nosniff"
BROWSER = {
    "Strict-Transport-Security: max-age=63072000; includeSubDomains",
    f"Content-Security-Policy: {POLICY}",
    "X-Frame-Options: DENY",
    NOSNIFF,
}

# Where we answer otherwise, by the start of the request.
DIFFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "main GET /bootstrap-dns": ("empty JSON is an object, not nothing", {"body": True}),
    "main POST /bootstrap-dns": ("the same", {"body": True}),
    "main GET * ": ("a reason is given", {"body": True, "headers": {PLAIN, NOSNIFF}}),
    "main CONNECT": ("the Go derper says 403 with TLS only", {"status": 403}),
    "plain CONNECT": ("the same", {"status": 403}),
    "main GET http://a.example HTTP": (
        "an empty path is the root (RFC 9112, 3.2.2), not a redirect to it",
        {"status": 200, "headers": {"Content-Type: text/html; charset=utf-8", *BROWSER}},
    ),
    "main POST / HTTP/1.1 Host: derp.example Expect": (
        "a reason is given",
        {"body": True, "headers": {PLAIN, NOSNIFF}},
    ),
    "main POST / HTTP/1.1 Host: derp.example Content-Length: 300000": (
        "no page wants a body: past a limit it is refused, not ignored",
        {"status": 413, "headers": {PLAIN, NOSNIFF}},
    ),
    "plain GET http://a.example/x": (
        "theirs leads to https://a.examplehttp://a.example/x",
        {"headers": {"Content-Type: text/html; charset=utf-8", "Location: https://a.example/x"}},
    ),
    "plain GET /x HTTP/1.0": (
        "without a Host theirs leads to https:///x",
        {"headers": {"Content-Type: text/html; charset=utf-8", "Location: https://derp.example/x"}},
    ),
}


def expected(answer: dict[str, Any], name: str) -> dict[str, Any]:
    headers = set(answer["headers"])
    for group in ("BROWSER", "DEBUG"):
        if group in headers:
            headers = (headers - {group}) | BROWSER
    if "/debug/varz" in name and answer["status"] == 200:
        # Their version and charset get lost where two exporters share the page.
        headers = (headers - {PLAIN}) | {"Content-Type: text/plain;version=0.0.4;charset=utf-8"}
    if answer["status"] == 405:  # RFC 9110, 15.5.6
        headers.add("Allow: GET" if "websocket" in name else "Allow: GET, HEAD")
    if answer["status"] == 426 and "websocket" not in name:  # RFC 9110, 15.5.22
        headers.add("Upgrade: DERP")
    if answer["status"] >= 400:
        headers.add(NOSNIFF)
    ours = {"status": answer["status"], "headers": headers, "body": answer["body"]}
    for start, (_, difference) in DIFFERENCES.items():
        if name.startswith(start):
            ours |= difference
    return ours


def site_for(name: str) -> Backend:
    match name:
        case "disabled":
            return make_backend(derp=False, home="blank")
        case "redirect":
            site = make_backend(home="https://example.com/x")
            site.bootstrap_dns.publish("localhost", Record(("127.0.0.1",)))
            return site
    return make_backend()


async def ask(site: str, lines: list[str]) -> dict[str, Any]:
    router = partial(route_plain if site == "plain" else route, site_for(site))
    client, transport = memory_pair(client=Endpoint("127.0.0.1", 40000))
    await client.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    client.send_eof()
    with contextlib.suppress(HTTPFailed):
        handoff = await serve(transport, router, memoryview(bytearray(1 << 16)))
        if handoff is not None:
            await transport.send(handoff.answer)
    transport.close()
    received = (await client.receive_all()).replace(bytes(range(32)).hex().encode(), b"KEY")
    head, _, body = received.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    left_out = {"Date", "Content-Length", "Transfer-Encoding", "Connection"}
    return {
        "status": int(first.split()[1]),
        "headers": {header for header in headers if header.partition(":")[0] not in left_out},
        "body": bool(body),
    }


NAMES = [f"{answer['site']} {' '.join(answer['request'])}" for answer in GO_ANSWERS]


@pytest.mark.parametrize(("name", "answer"), list(zip(NAMES, GO_ANSWERS, strict=True)), ids=NAMES)
async def test_answer(name: str, answer: dict[str, Any]) -> None:
    ours, theirs = await ask(answer["site"], answer["request"]), expected(answer, name)
    for side in (ours, theirs):
        side["headers"] = sorted(header.lower() for header in side["headers"])
    assert ours == theirs


def test_each_difference_is_one() -> None:
    for start in DIFFERENCES:
        assert any(name.startswith(start) for name in NAMES)
