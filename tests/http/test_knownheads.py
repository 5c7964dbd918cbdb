"""A head that is known is not parsed again, and nothing else comes of it than of parsing."""

import contextlib

import h11
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, PeerVanished
from derp.http.knownheads import MAX_HEADS, MAX_LENGTH, KnownHeads
from derp.http.message import Answer, Handoff, Request
from derp.http.routes import route
from derp.http.server import serve
from derp.net.address import Endpoint
from tests.http.sites import make_backend
from tests.http.test_server import DERP, FAST, LAST_PROBE, WEBSOCKET, without_date
from tests.memory_transport import memory_pair

Outcome = tuple[Handoff | str | None, bytes, list[Request]]

NEARLY = st.lists(
    st.sampled_from(
        [
            *(DERP, FAST, WEBSOCKET, LAST_PROBE, b"GET /derp HTTP/1.1\r\n", b"Host: a\r\n"),
            *(b"Upgrade: DERP\r\n", b"\r\n", b"\n", b"\r", b"X: y\r\n", b"Content-Length: 2\r\n"),
            *(FAST.replace(b"\r\n", b"\n"), b"\2\0\0\0\1x", b"\0", b" "),
        ]
    ),
    max_size=8,
).map(b"".join)


async def visit(
    known: KnownHeads,
    *pieces: bytes,
    at_once: bool = False,
    derp: bool = True,
    remote: str = "192.0.2.9",
) -> Outcome:
    """Serve one connection; return how that ended, what came back, and the requests routed."""
    client, transport = memory_pair(capacity=1 << 20, client=Endpoint(remote, 40000))
    source, requests = make_backend(derp=derp), list[Request]()
    transport.more = at_once

    def note(request: Request) -> Answer:
        requests.append(request)
        return route(source, request)

    result: Handoff | str | None = None

    async def serve_it() -> None:
        nonlocal result
        try:
            result = await serve(transport, note, memoryview(bytearray(1 << 16)), known=known)
        except ConnectionEnd as end:
            result = str(end)
        transport.close()

    for piece in filter(None, pieces):
        client.write(piece)
    client.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_it)
        received = b""
        # A reset, where the server is done before it has read all.
        with contextlib.suppress(PeerVanished):
            while data := await client.receive():
                received += data
    return result, without_date(received), requests


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_conn: h11.Connection) -> None:
        pytest.fail("a known head was parsed")

    monkeypatch.setattr(h11.Connection, "next_event", fail)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("head", [DERP, FAST])
async def test_is_not_parsed(head: bytes, at_once: bool, request: pytest.FixtureRequest) -> None:
    known = KnownHeads()
    first = await visit(known, head + b"frames")
    request.getfixturevalue("no_parser")
    assert await visit(known, head + b"frames", at_once=at_once) == first
    _, _, [routed] = await visit(known, head, at_once=at_once, remote="192.0.2.10")
    assert routed.remote == "192.0.2.10"


@given(first=NEARLY, then=NEARLY, cut=st.integers(0, 200), at_once=st.booleans())
@example(FAST, FAST + FAST, 200, True)
@example(FAST.replace(b"\r\n", b"\n") + b"\r\n\r\n", FAST.replace(b"\r\n", b"\n"), 200, True)
@example(FAST, FAST[:-4] + b"\n" + FAST[-4:], 200, True)
async def test_changes_nothing(first: bytes, then: bytes, cut: int, at_once: bool) -> None:
    known = KnownHeads()
    await visit(known, first)
    fresh = await visit(KnownHeads(), then[:cut], then[cut:])
    assert await visit(known, then[:cut], then[cut:], at_once=at_once) == fresh


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_known_head_that_is_answered_stays_http(at_once: bool) -> None:
    """As on the plain port beside TLS, where the same bytes are no upgrade."""
    known = KnownHeads()
    await visit(known, DERP)
    sent = DERP + DERP + LAST_PROBE
    outcome = await visit(known, sent, at_once=at_once, derp=False)
    assert outcome == await visit(KnownHeads(), sent, derp=False)
    assert outcome[1].count(b"HTTP/1.1 404 ") == 2


async def test_a_websocket_is_not_remembered() -> None:
    known = KnownHeads()
    await visit(known, WEBSOCKET)
    assert known.find(WEBSOCKET, "192.0.2.9") is None


def test_memory_is_bounded() -> None:
    known = KnownHeads()
    request = Request("GET", "/derp", "/derp", "", "a", "1.1", (), "192.0.2.9")
    heads = [b"GET /derp?%d HTTP/1.1\r\n\r\n" % number for number in range(MAX_HEADS + 1)]
    for head in heads:
        known.add(head, request)
    found = [known.find(head + b"rest", "192.0.2.10") for head in heads]
    assert found[0] is None
    assert [each[0] for each in found if each] == heads[1:]
    long = b"x" * MAX_LENGTH + b"\r\n\r\n"
    known.add(long, request)
    assert known.find(long, "") is None
