import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from email.utils import formatdate
from functools import partial
from itertools import pairwise

import attrs
import h11
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, HTTPFailed, PeerVanished, RPCFailed
from derp.http.backend import Backend
from derp.http.message import Answer, BadRequest, Handoff, Later, Posted, Request, Response, Stream
from derp.http.requestreader import MAX_BODY, MAX_HEAD
from derp.http.routes import route
from derp.http.server import Deadlines, http_date, serve
from derp.net.address import Endpoint
from tests.http.sites import make_backend
from tests.memory_transport import MemoryTransport, memory_pair
from tests.support.examples import examples

Router = Callable[[Request], Answer]

DERP = b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: DERP\r\n\r\n"
FAST = b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"
PROBE = b"GET /derp/probe HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_PROBE = b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def hello(request: Request) -> Response:
    """Answers with what was asked."""
    return Response(200, (), f"{request.method} {request.target}".encode())


@attrs.define
class Visit:
    """One connection: what the client got, and how `serve` ended."""

    client: MemoryTransport
    transport: MemoryTransport
    router: Router
    scratch: memoryview = attrs.field(factory=lambda: memoryview(bytearray(1 << 16)))
    result: Handoff | ConnectionEnd | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self) -> None:
        try:
            self.result = await serve(self.transport, self.router, self.scratch)
        except ConnectionEnd as end:
            self.result = end
        finally:
            self.transport.close()
            self.done.set()


def visit(router: Router, remote: str = "192.0.2.7", capacity: int = 1 << 20) -> Visit:
    client, transport = memory_pair(capacity=capacity, client=Endpoint(remote, 40000))
    return Visit(client, transport, router)


async def play(
    visit: Visit, pieces: list[bytes], *, eof: bool = True, may_reset: bool = False
) -> bytes:
    """Send `pieces`, each to be read for itself, then an end; return all that comes back."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit.serve)
        for piece in pieces:
            if visit.transport.closed:
                break
            visit.client.write(piece)
        if eof:
            visit.client.send_eof()
        received = b""
        try:
            while data := await visit.client.receive():
                received += data
        except PeerVanished:
            # Right where more was sent than the peer had leave to.
            assert may_reset
        return received


def parse(data: bytes, *methods: str, closed: bool = True) -> list[tuple[h11.Response, bytes]]:
    """Take apart the answers to requests of `methods`; fail the test unless they are HTTP."""
    conn = h11.Connection(h11.CLIENT)
    conn.receive_data(data)
    if closed:
        conn.receive_data(b"")
    answers = []
    for number, method in enumerate(methods):
        if number:
            conn.start_next_cycle()
        conn.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        conn.send(h11.EndOfMessage())
        answer = conn.next_event()
        assert isinstance(answer, h11.Response), answer
        body = b""
        while isinstance(event := conn.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        answers.append((answer, body))
    assert conn.trailing_data[0] == b""
    return answers


def statuses(data: bytes, *methods: str) -> list[int]:
    return [answer.status_code for answer, _ in parse(data, *methods)]


class TestRequests:
    async def test_one(self) -> None:
        visited = visit(hello)
        [(answer, body)] = parse(
            await play(visited, [b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"]), "GET"
        )
        assert (answer.status_code, answer.reason, body) == (200, b"OK", b"GET /x")
        assert {b"date", b"content-length"} == {name for name, _ in answer.headers}
        assert visited.result is None

    async def test_pipelined(self) -> None:
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50))
        answers = parse(await play(visit(hello), [requests]), *["GET"] * 50)
        assert [body for _, body in answers] == [b"GET /%d" % n for n in range(50)]

    async def test_kept_alive(self) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            for number in range(5):
                await visited.client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                answer = await visited.client.receive()
                assert answer.endswith(b"GET /%d" % number)
            visited.client.send_eof()
        assert visited.result is None

    async def test_pipelined_requests_let_others_run(self) -> None:
        turns = 0
        seen = []

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        def look(_request: Request) -> Response:
            seen.append(turns)
            return Response(204)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await play(visit(look), [PROBE * 100])
            nursery.cancel_scope.cancel()
        assert seen[-1] - seen[0] >= 98

    async def test_head_has_no_body(self) -> None:
        data = await play(visit(hello), [b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n" + PROBE])
        (first, body), (_, second) = parse(data, "HEAD", "GET")
        assert (b"content-length", b"7") in first.headers
        assert (body, second) == (b"", b"GET /derp/probe")

    async def test_1_0_ends_the_connection(self) -> None:
        data = await play(visit(hello), [b"GET /x HTTP/1.0\r\n\r\n"], eof=False)
        [(answer, body)] = parse(data, "GET")
        assert (b"connection", b"close") in answer.headers
        assert body == b"GET /x"

    async def test_connection_close(self) -> None:
        visited = visit(hello)
        data = await play(visited, [LAST_PROBE], eof=False)
        assert statuses(data, "GET") == [200]
        assert visited.result is None

    async def test_answer_that_closes(self, site: Backend) -> None:
        visited = visit(partial(route, site))
        asked = b"GET /bootstrap-dns HTTP/1.1\r\nHost: a\r\n\r\n"
        data = await play(visited, [asked], eof=False)
        [(answer, body)] = parse(data, "GET")
        assert (b"connection", b"close") in answer.headers
        assert body == b"{}"

    async def test_proposal_of_another_protocol_is_ignored(self) -> None:
        asked = b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
        assert statuses(await play(visit(hello), [asked + PROBE]), "GET", "GET") == [200, 200]

    async def test_connect_is_refused_and_the_connection_goes_on(self, site: Backend) -> None:
        asked = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"
        data = await play(visit(partial(route, site)), [asked + PROBE])
        assert data.startswith(b"HTTP/1.1 403 ")
        assert data.count(b"HTTP/1.1 200 ") == 1

    async def test_half_a_record_is_waited_out(self) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            for _ in range(3):
                visited.client.wake()
                await trio.testing.wait_all_tasks_blocked()
            assert not visited.done.is_set()
            await visited.client.send(LAST_PROBE)
            assert b"200" in await visited.client.receive_all()

    async def test_scratch_is_not_kept(self) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            for piece in (DERP[:20], DERP[20:]):
                await visited.client.send(piece.replace(b"/derp", b"/what"))
                await trio.testing.wait_all_tasks_blocked()
                visited.scratch[:] = bytes(len(visited.scratch))
            assert (await visited.client.receive()).endswith(b"GET /what")
            visited.client.send_eof()

    async def test_peer_that_reads_slowly_gets_everything(self) -> None:
        visited = visit(lambda _: Response(200, (), b"x" * 100_000), capacity=1000)
        data = await play(visited, [LAST_PROBE], eof=False)
        [(_, body)] = parse(data, "GET")
        assert len(body) == 100_000


class TestEnds:
    async def test_peer_that_says_nothing(self) -> None:
        visited = visit(hello)
        assert await play(visited, []) == b""
        assert visited.result is None

    @pytest.mark.parametrize("part", [b"G", PROBE[:-1]])
    @pytest.mark.parametrize("before", [b"", PROBE])
    async def test_peer_that_leaves_in_a_head(self, before: bytes, part: bytes) -> None:
        visited = visit(hello)
        await play(visited, [before + part])
        assert isinstance(visited.result, PeerVanished)

    async def test_peer_that_leaves_in_a_body(self) -> None:
        visited = visit(hello)
        asked = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1234"
        assert await play(visited, [asked]) == b""
        assert isinstance(visited.result, PeerVanished)

    async def test_peer_that_resets(self) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
            await visited.client.receive()
            visited.client.abort()
        assert isinstance(visited.result, PeerVanished)


def post(*headers: bytes, body: bytes = b"") -> bytes:
    head = b"".join(b"%s\r\n" % header for header in headers)
    return b"POST /x HTTP/1.1\r\nHost: a\r\n%s\r\n%s" % (head, body)


class TestBodies:
    @pytest.mark.parametrize(
        "asked",
        [
            post(b"Content-Length: 0"),
            post(b"Content-Length: 5", body=b"12345"),
            post(b"Content-Length: %d" % MAX_BODY, body=bytes(MAX_BODY)),
            post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            post(b"Transfer-Encoding: chunked", body=b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"),
        ],
    )
    async def test_is_thrown_away(self, asked: bytes) -> None:
        data = await play(visit(hello), [asked + LAST_PROBE])
        assert statuses(data, "POST", "GET") == [200, 200]

    @pytest.mark.parametrize(
        "asked",
        [
            post(b"Content-Length: %d" % (MAX_BODY + 1)),
            post(b"Content-Length: 99999999999999999999", body=bytes(200_000)),
            post(b"Transfer-Encoding: chunked", body=b"1FFFF\r\n" + bytes(0x1FFFF)),
            post(b"Transfer-Encoding: chunked", body=(b"1;%s\r\nx\r\n" % (b"y" * 1000)) * 200),
        ],
    )
    async def test_too_large(self, asked: bytes) -> None:
        visited = visit(hello)
        [(answer, _)] = parse(await play(visited, [asked]), "POST")
        assert answer.status_code == 413
        assert (b"connection", b"close") in answer.headers
        assert isinstance(visited.result, HTTPFailed)

    @pytest.mark.parametrize("body", [b"", b"12345"])
    async def test_no_100_is_given(
        self, body: bytes, autojump_clock: trio.testing.MockClock
    ) -> None:
        asked = post(b"Content-Length: 5", b"Expect: 100-continue", body=body)
        visited = visit(hello)
        [(answer, text)] = parse(await play(visited, [asked], eof=False), "POST")
        assert (answer.status_code, text) == (200, b"POST /x")
        assert (b"connection", b"close") in answer.headers
        assert visited.result is None

    async def test_100_is_not_missed_without_a_body(self) -> None:
        asked = post(b"Content-Length: 0", b"Expect: 100-continue") + LAST_PROBE
        assert statuses(await play(visit(hello), [asked]), "POST", "GET") == [200, 200]


def head_of(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def echo(request: Request) -> Answer:
    """Answers a POST to /posted with its body, of 20 bytes at most."""
    if request.path != "/posted":
        return hello(request)
    return Posted(20, lambda body: Response(200, (), b"got " + body))


class TestPosted:
    """Pages that want the request's body."""

    @pytest.mark.parametrize(
        "asked",
        [
            b"Content-Length: 5\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ],
    )
    @pytest.mark.parametrize("split", [False, True])
    async def test_is_read(self, asked: bytes, split: bool) -> None:
        head = b"POST /posted HTTP/1.1\r\nHost: a\r\n"
        pieces = [head, *([bytes([byte]) for byte in asked] if split else [asked]), PROBE]
        (_, body), (_, after) = parse(await play(visit(echo), pieces), "POST", "GET")
        assert body == b"got hello"
        assert after == b"GET /derp/probe"

    async def test_may_be_empty(self) -> None:
        data = await play(visit(echo), [b"POST /posted HTTP/1.1\r\nHost: a\r\n\r\n"])
        assert parse(data, "POST")[0][1] == b"got "

    async def test_100_is_given_to_one_who_waits_for_it(self) -> None:
        visited = visit(echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(
                b"POST /posted HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert (await visited.client.receive()).startswith(b"HTTP/1.1 100 ")
            await visited.client.send(b"hello")
            assert (await visited.client.receive()).endswith(b"got hello")
            visited.client.send_eof()

    @pytest.mark.parametrize(
        "asked",
        [
            b"Content-Length: 21\r\n\r\n",
            b"Content-Length: 21\r\nExpect: 100-continue\r\n\r\n",
            b"Content-Length: 21\r\n\r\n" + bytes(21),
            b"Transfer-Encoding: chunked\r\n\r\n15\r\n" + bytes(21) + b"\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 9000,
        ],
    )
    async def test_too_large(self, asked: bytes) -> None:
        head = b"POST /posted HTTP/1.1\r\nHost: a\r\n"
        data = await play(visit(echo), [head + asked], may_reset=True)
        assert data.startswith(b"HTTP/1.1 413 ")
        assert b"got" not in data

    async def test_that_never_comes(self, autojump_clock: trio.testing.MockClock) -> None:
        asked = b"POST /posted HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"
        data = await play(visit(echo), [asked], eof=False)
        assert statuses(data, "POST") == [408]

    async def test_a_bug(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(body: bytes) -> Response:
            raise RuntimeError(body.decode())

        asked = b"POST /posted HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        data = await play(visit(lambda _: Posted(20, fail)), [asked])
        assert statuses(data, "POST") == [500]
        assert "a page failed" in caplog.text


class TestMalformed:
    @pytest.mark.parametrize(
        ("asked", "status"),
        [
            (b"\r\n\r\n", 400),
            (b"garbage\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"GET / HTTP/0.9\r\n\r\n", 505),
            (head_of(MAX_HEAD + 2), 431),
            (b"GET /" + b"x" * 2 * MAX_HEAD, 431),
        ],
    )
    @pytest.mark.parametrize("before", [b"", PROBE, b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"])
    async def test_status(self, before: bytes, asked: bytes, status: int) -> None:
        visited = visit(hello)
        method = "HEAD" if before.startswith(b"HEAD") else "GET"
        methods = [method, "GET"] if before else ["GET"]
        answer, body = parse(await play(visited, [before + asked]), *methods)[-1]
        assert answer.status_code == status
        assert (b"connection", b"close") in answer.headers
        assert body.endswith(b"\n")
        assert isinstance(visited.result, BadRequest)
        assert str(visited.result) == body.decode().rstrip()

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            # Two that each say where the body ends (RFC 9112, 6.3), in either order.
            (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
            (b"Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
            (b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked", 400),
            (b"Content-Length: 5\r\nContent-Length: 4", 400),
            (b"Content-Length: 5, 4", 400),
            (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
            # What one reader takes for a coding or a length, and another does not.
            (b"Transfer-Encoding: identity", 501),
            (b"Transfer-Encoding: xchunked", 501),
            (b"Transfer-Encoding: gzip, chunked", 501),
            (b"Transfer-Encoding:", 501),
            (b"Transfer-Encoding: \x0bchunked", 400),
            (b"Content-Length: +5", 400),
            (b"Content-Length: 0x5", 400),
            (b"Content-Length: 0_5", 400),
            (b"Content-Length: ", 400),
            (b"Content-Length: %s" % (b"9" * 5000), 400),
            # What one reader takes for a field, and another does not.
            (b"Transfer-Encoding : chunked", 400),
            (b"Content-Length\t: 5", 400),
            (b"X: y\rTransfer-Encoding: chunked", 400),
            (b"X: y\0", 400),
            (b"X", 400),
            (b"(X): y", 400),
            (b"\xe9: y", 400),
        ],
    )
    async def test_ambiguous(self, fields: bytes, status: int) -> None:
        """Nothing behind it is taken for a request: it may be part of the body, to a proxy."""
        visited = visit(hello)
        asked = post(fields, body=b"0\r\n\r\n") + PROBE
        [(answer, _)] = parse(await play(visited, [asked]), "POST")
        assert answer.status_code == status
        assert (b"connection", b"close") in answer.headers
        assert isinstance(visited.result, BadRequest)

    async def test_transfer_coding_in_1_0(self) -> None:
        """It is not of that version, and so not all read it (RFC 9112, 6.1)."""
        visited = visit(hello)
        fields = b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
        asked = b"POST /x HTTP/1.0\r\n" + fields + b"\r\n0\r\n\r\n"
        [(answer, _)] = parse(await play(visited, [asked + PROBE]), "POST")
        assert answer.status_code == 400
        assert isinstance(visited.result, BadRequest)

    @pytest.mark.parametrize(
        "asked",
        [
            post(b"Content-Length: 5", b"Content-Length: 5", body=b"12345"),
            post(b"Content-Length: 5, 5", body=b"12345"),
            post(b"Content-Length: 05", body=b"12345"),
            post(b"Transfer-Encoding: CHUNKED", body=b"0\r\n\r\n"),
            post(b"Transfer-Encoding:\r\n\tchunked", body=b"0\r\n\r\n"),
            b"POST /x HTTP/1.1\nHost: a\nContent-Length: 5\n\n12345",
            b"POST /x HTTP/1.1\r\nHost: a\nContent-Length:\n 5\r\n\r\n12345",
        ],
    )
    async def test_odd_and_clear(self, asked: bytes) -> None:
        """Repeated, folded, or with a line feed for an end: it can mean one thing only."""
        data = await play(visit(hello), [asked + LAST_PROBE])
        assert statuses(data, "POST", "GET") == [200, 200]

    async def test_refused_head_request(self) -> None:
        asked = b"HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n"
        [(answer, body)] = parse(await play(visit(hello), [asked]), "HEAD")
        assert (answer.status_code, body) == (400, b"")

    @pytest.mark.parametrize("step", [1 << 16, 1000])
    @pytest.mark.parametrize(("size", "status"), [(MAX_HEAD, 200), (MAX_HEAD + 2, 431)])
    async def test_limit_does_not_depend_on_the_pieces(
        self, step: int, size: int, status: int
    ) -> None:
        asked = head_of(size)
        pieces = [asked[start : start + step] for start in range(0, len(asked), step)]
        assert statuses(await play(visit(hello), pieces), "GET") == [status]

    async def test_answer_outlives_what_is_still_sent(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        visited = visit(hello)
        asked = post(b"Content-Length: 200000")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(asked)
            await trio.testing.wait_all_tasks_blocked()
            await visited.client.send(bytes(100_000))
            assert statuses(await visited.client.receive_all(), "POST") == [413]

    async def test_peer_that_never_stops_is_not_read_for_ever(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        visited = visit(hello, capacity=1 << 16)

        async def send() -> None:
            with contextlib.suppress(PeerVanished):
                while True:
                    await visited.client.send(bytes(1 << 16))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            nursery.start_soon(send)
            await visited.done.wait()
            nursery.cancel_scope.cancel()
        assert trio.current_time() < 2
        assert isinstance(visited.result, BadRequest)


class TestSlowPeers:
    async def test_nothing_comes(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(hello)
        start = trio.current_time()
        assert await play(visited, [], eof=False) == b""
        assert trio.current_time() - start == pytest.approx(30)
        assert isinstance(visited.result, HTTPFailed)
        assert not isinstance(visited.result, BadRequest)

    @pytest.mark.parametrize("asked", [PROBE, post(b"Content-Length: 60", body=bytes(60))])
    async def test_drip(self, asked: bytes, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(hello)
        start = trio.current_time()

        async def drip() -> None:
            with contextlib.suppress(PeerVanished):
                for number in range(len(asked) - 1):
                    visited.client.write(asked[number : number + 1])
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            nursery.start_soon(drip)
            assert statuses(await visited.client.receive(), "GET") == [408]
            await visited.done.wait()
            nursery.cancel_scope.cancel()
        assert isinstance(visited.result, BadRequest)
        assert 30 <= trio.current_time() - start <= 31

    async def test_idle(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            for _ in range(3):
                await trio.sleep(29)
                await visited.client.send(PROBE)
                assert await visited.client.receive()
            start = trio.current_time()
            assert await visited.client.receive() == b""
            assert trio.current_time() - start == pytest.approx(30)
        assert visited.result is None

    async def test_next_request_has_its_time_from_its_first_byte(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        visited = visit(hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
            await visited.client.receive()
            await trio.sleep(29)
            await visited.client.send(PROBE[:5])
            await trio.sleep(29)
            await visited.client.send(PROBE[5:])
            assert b"200" in await visited.client.receive()
            await visited.client.send(PROBE[:5])
            start = trio.current_time()
            assert statuses(await visited.client.receive_all(), "GET") == [408]
            assert 30 <= trio.current_time() - start <= 31

    async def test_pipelined_part_has_its_time_from_the_answer(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        visited = visit(hello)
        data = await play(visited, [PROBE + PROBE[:5]], eof=False)
        assert statuses(data, "GET", "GET") == [200, 408]
        assert 30 <= trio.current_time() <= 31

    async def test_answer_not_taken(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(lambda _: Response(200, (), bytes(1000)), capacity=100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
        assert isinstance(visited.result, HTTPFailed)
        assert trio.current_time() == pytest.approx(30)

    async def test_deadlines_are_given(self, autojump_clock: trio.testing.MockClock) -> None:
        _client, transport = memory_pair()
        with pytest.raises(HTTPFailed, match="within 5 s"):
            await serve(transport, hello, memoryview(bytearray(100)), Deadlines(request=5.0))
        assert trio.current_time() == pytest.approx(5)


class TestBugs:
    """What is wrong in a page is logged with its traceback, and the peer learns nothing of it."""

    @staticmethod
    def broken(_request: Request) -> Response:
        raise RuntimeError("a secret")

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    async def test_in_a_page(self, method: str, caplog: pytest.LogCaptureFixture) -> None:
        visited = visit(self.broken)
        asked = f"{method} /x?debugkey=k HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        [(answer, body)] = parse(await play(visited, [asked], eof=False), method)
        assert (answer.status_code, body) == (500, b"")
        assert visited.result is None
        [record] = caplog.records
        # The query may hold a key.
        assert vars(record)["fields"] == {"method": method, "path": "/x"}
        assert (record.name, record.levelno) == ("derper.http", logging.ERROR)
        assert record.exc_info is not None
        assert "a secret" in caplog.text

    async def test_in_a_header(self, caplog: pytest.LogCaptureFixture) -> None:
        visited = visit(lambda _: Response(200, (("X", "a\r\nSet-Cookie: b"),)))
        data = await play(visited, [PROBE], eof=False)
        assert statuses(data, "GET") == [500]
        assert b"Set-Cookie" not in data
        assert len(caplog.records) == 1

    async def test_in_a_stream(self, caplog: pytest.LogCaptureFixture) -> None:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield b"one\n"
            raise RuntimeError("a secret")

        visited = visit(lambda _: Stream((), chunks))
        data = await play(visited, [PROBE], eof=False)
        assert data.endswith(b"4\r\none\n\r\n")
        assert visited.result is None
        assert "a secret" in caplog.text

    async def test_in_a_stream_of_one_who_is_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        """That is no bug; the client sees that something is missing."""

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield b"one\n"
            raise RPCFailed("the other process has ended")

        visited = visit(lambda _: Stream((), chunks))
        data = await play(visited, [PROBE], eof=False)
        assert data.endswith(b"4\r\none\n\r\n")
        assert visited.result is None
        [record] = caplog.records
        assert record.exc_info is None


async def test_a_stream_ends_before_the_next_chunk_once_it_is_not_allowed() -> None:
    allowed = [True]

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"one\n"
        allowed[0] = False
        yield b"two\n"

    visited = visit(lambda _: Stream((), chunks, lambda: allowed[0]))
    data = await play(visited, [PROBE], eof=False)
    # The body has its end, and the connection goes on: the next request is told why.
    assert data.endswith(b"4\r\none\n\r\n0\r\n\r\n")


def later(ask: Callable[[], Awaitable[str]]) -> Router:
    """Answer each request with what `ask` gives."""
    return lambda _: Later(ask, lambda text: Response(200, (("X", "y"),), text.encode()))


class TestLater:
    """A page that has to be waited for."""

    @staticmethod
    async def slow() -> str:
        await trio.sleep(9)
        return "text"

    async def test_is_answered_like_one_that_has_not(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        asked = PROBE + b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n" + LAST_PROBE
        visited = visit(later(self.slow))
        data = await play(visited, [asked], eof=False)
        at_once = visit(lambda _: Response(200, (("X", "y"),), b"text"))
        assert without_date(data) == without_date(await play(at_once, [asked], eof=False))
        assert [body for _, body in parse(data, "GET", "HEAD", "GET")] == [b"text", b"", b"text"]
        assert trio.current_time() == pytest.approx(27)
        assert visited.result is None

    async def test_the_connection_stays_open(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(later(self.slow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            for _ in range(5):
                await visited.client.send(PROBE)
                assert (await visited.client.receive()).endswith(b"\r\n\r\ntext")
            visited.client.send_eof()
        assert visited.result is None

    async def test_that_never_comes(
        self, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def never() -> str:
            await trio.sleep_forever()
            raise AssertionError

        visited = visit(later(never))
        [(answer, body), (_, none)] = parse(
            await play(visited, [PROBE + LAST_PROBE.replace(b"GET", b"HEAD")]), "GET", "HEAD"
        )
        assert answer.status_code == 503
        assert body == b"this page is unavailable: no answer within 15 s\n"
        assert none == b""
        assert trio.current_time() == pytest.approx(30)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert caplog.records[0].exc_info is None

    async def test_the_bound_is_given(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(later(self.slow))
        visited.client.write(LAST_PROBE)
        await serve(visited.transport, visited.router, visited.scratch, Deadlines(later=3))
        visited.transport.close()
        assert b" 503 " in await visited.client.receive_all()
        assert trio.current_time() == pytest.approx(3)

    async def test_from_one_who_is_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        async def gone() -> str:
            raise RPCFailed("the other process has ended")

        visited = visit(later(gone))
        [(answer, body), _] = parse(await play(visited, [PROBE + LAST_PROBE]), "GET", "GET")
        assert answer.status_code == 503
        assert body == b"this page is unavailable: the other process has ended\n"
        assert caplog.records[0].exc_info is None
        assert visited.result is None

    @pytest.mark.parametrize("in_show", [False, True])
    async def test_a_bug(self, in_show: bool, caplog: pytest.LogCaptureFixture) -> None:
        async def ask() -> str:
            if not in_show:
                raise RuntimeError("a secret")
            return "text"

        def show(_text: str) -> Response:
            raise RuntimeError("a secret")

        visited = visit(lambda _: Later(ask, show))
        [(answer, body)] = parse(await play(visited, [PROBE], eof=False), "GET")
        assert (answer.status_code, body) == (500, b"")
        assert caplog.records[0].exc_info is not None

    async def test_of_a_client_that_breaks_a_rule_nobody_is_asked(self) -> None:
        async def ask() -> str:
            raise AssertionError

        asked = post(b"Content-Length: 99999")
        assert statuses(await play(visit(later(ask)), [asked], may_reset=True), "POST") == [413]


class TestStreams:
    @staticmethod
    async def ticks() -> AsyncGenerator[bytes, None]:
        for number in range(3):
            yield b"%d\n" % number
            await trio.sleep(2)
        yield b""

    async def test_chunks_come_one_by_one(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(lambda _: Stream((("Content-Type", "text/plain"),), self.ticks))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
            head = await visited.client.receive()
            assert b"Transfer-Encoding: chunked\r\n" in head
            for number in range(3):
                assert await visited.client.receive() == b"2\r\n%d\n\r\n" % number
                assert trio.current_time() == pytest.approx(2 * number)
            assert await visited.client.receive() == b"0\r\n\r\n"
            await visited.client.send(LAST_PROBE)
            assert b"0\r\n\r\n" in await visited.client.receive_all()

    async def test_1_0(self, autojump_clock: trio.testing.MockClock) -> None:
        visited = visit(lambda _: Stream((), self.ticks))
        data = await play(visited, [b"GET / HTTP/1.0\r\n\r\n"], eof=False)
        assert data.endswith(b"\r\n\r\n0\n1\n2\n")
        assert b"chunked" not in data

    async def test_head(self) -> None:
        visited = visit(lambda _: Stream((), self.ticks))
        data = await play(visited, [b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"])
        [(_, body)] = parse(data, "HEAD")
        assert body == b""

    async def test_client_that_goes(self, autojump_clock: trio.testing.MockClock) -> None:
        closed = trio.Event()

        async def endless() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"\n"
                    await trio.sleep(2)
            finally:
                closed.set()

        visited = visit(lambda _: Stream((), endless))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
            await visited.client.receive()
            visited.client.abort()
        assert closed.is_set()
        assert isinstance(visited.result, PeerVanished)

    async def test_client_that_stops_reading(self, autojump_clock: trio.testing.MockClock) -> None:
        async def flood() -> AsyncGenerator[bytes, None]:
            while True:
                yield bytes(1000)

        visited = visit(lambda _: Stream((), flood), capacity=10_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visited.serve)
            await visited.client.send(PROBE)
        assert isinstance(visited.result, HTTPFailed)
        assert trio.current_time() == pytest.approx(30)


async def hand_off(
    site: Backend, pieces: list[bytes], *, eof: bool = False
) -> tuple[Handoff, bytes]:
    """Return the handoff, with what the transport still held added to its leftover."""
    visited = visit(partial(route, site))
    for piece in pieces:
        visited.client.write(piece)
    if eof:
        visited.client.send_eof()
    handoff = await serve(visited.transport, visited.router, visited.scratch)
    assert isinstance(handoff, Handoff)
    view = memoryview(bytearray(1 << 16))
    rest = b""
    while (count := visited.transport.read_into(view)) > 0:
        rest += view[:count]
    visited.transport.close()
    answer = await visited.client.receive_all()
    return attrs.evolve(handoff, leftover=handoff.leftover + rest), answer


WEBSOCKET = (
    b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: derp\r\nIdeal-Node: 1a\r\n\r\n"
)


class TestHandoff:
    async def test_raw(self, site: Backend) -> None:
        handoff, answer = await hand_off(site, [DERP])
        assert handoff == Handoff(
            answer=site.upgrade_answer,
            websocket=False,
            fast_start=False,
            ideal_node="",
            head=DERP,
            leftover=b"",
        )
        # It is sent with what comes first.
        assert answer == b""

    async def test_fast_start(self, site: Backend) -> None:
        handoff, answer = await hand_off(site, [FAST + b"frames"])
        assert handoff == Handoff(
            answer=b"",
            websocket=False,
            fast_start=True,
            ideal_node="",
            head=FAST,
            leftover=b"frames",
        )
        assert answer == b""

    async def test_websocket(self, site: Backend) -> None:
        handoff, answer = await hand_off(site, [WEBSOCKET + b"frames"])
        assert handoff == Handoff(
            answer=b"",
            websocket=True,
            fast_start=False,
            ideal_node="1a",
            head=WEBSOCKET,
            leftover=b"frames",
        )
        assert answer == b""

    async def test_after_other_requests(self, site: Backend) -> None:
        handoff, answer = await hand_off(site, [PROBE + PROBE + FAST + b"frames"])
        assert (handoff.head, handoff.leftover) == (FAST, b"frames")
        assert statuses(answer, "GET", "GET") == [200, 200]

    async def test_end_right_behind(self, site: Backend) -> None:
        handoff, _ = await hand_off(site, [FAST + b"frames"], eof=True)
        assert handoff.leftover == b"frames"

    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    @pytest.mark.parametrize("extra", [b"", b"Content-Length: 0\r\n", b"Connection: Upgrade\r\n"])
    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    async def test_forms_of_the_request(
        self, site: Backend, method: bytes, extra: bytes, version: bytes
    ) -> None:
        head = b"%s /derp HTTP/%s\r\nHost: a\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n%s\r\n" % (
            method,
            version,
            extra,
        )
        handoff, _ = await hand_off(site, [head + b"frames"])
        assert (handoff.head, handoff.leftover) == (head, b"frames")

    async def test_only_little_is_taken_from_the_transport(self, site: Backend) -> None:
        frames = bytes(range(256)) * 1000
        handoff, _ = await hand_off(site, [FAST + frames])
        assert handoff.leftover == frames

    @given(
        leftover=st.binary(max_size=100),
        before=st.sampled_from([b"", PROBE]),
        head=st.sampled_from([DERP, FAST, WEBSOCKET, FAST.replace(b"\r\n", b"\n")]),
        cuts=st.lists(st.integers(1, 400), max_size=6),
    )
    async def test_any_split(
        self,
        before: bytes,
        head: bytes,
        leftover: bytes,
        cuts: list[int],
    ) -> None:
        pieces = split(before + head + leftover, cuts)
        handoff, _ = await hand_off(make_backend(), pieces)
        assert (handoff.head, handoff.leftover) == (head, leftover)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


# Pieces that make requests, nearly.
SCRAPS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"HEAD /debug/varz HTTP/1.1\r\nHost: a\r\n",
        b"POST /x HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        b"GET /derp HTTP/1.1\r\nHost: a\r\n",
        b"GET //derp?%zz HTTP/1.1\r\nHost: a\r\n",
        b"Upgrade: derp\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 99999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"X-Tailscale-Challenge: a\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\r\n",
        b"\n",
        b" ",
    ]
)
INPUTS = st.lists(SCRAPS | st.binary(max_size=20), max_size=12).map(b"".join)


async def converse(pieces: list[bytes]) -> tuple[bytes, str]:
    visited = visit(partial(route, make_backend()), remote="127.0.0.1")
    answer = await play(visited, pieces, may_reset=True)
    return answer, repr(visited.result)


class TestAnyBytes:
    @pytest.mark.slow
    @given(INPUTS, st.lists(st.integers(1, 300), max_size=5))
    @example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", [])
    @settings(max_examples=examples(300))
    async def test_answers_are_http_in_any_split(self, data: bytes, cuts: list[int]) -> None:
        answer, result = await converse([data] if data else [])
        again, same_result = await converse(split(data, cuts))
        assert without_date(again) == without_date(answer)
        assert same_result == result
        check_answers(answer, data)


def without_date(answer: bytes) -> bytes:
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))


def check_answers(answer: bytes, data: bytes) -> None:
    """Take the answers apart, knowing only that what answers a HEAD has no body."""
    while answer:
        assert answer.startswith(b"HTTP/1.1 "), answer
        head, end, answer = answer.partition(b"\r\n\r\n")
        assert end
        if head.startswith(b"HTTP/1.1 101 "):
            assert not answer
            return
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert b"Date" in fields
        length = int(fields.get(b"Content-Length", b"0"))
        if length and answer[:9] in {b"", b"HTTP/1.1 "}:
            assert b"HEAD" in data
        else:
            assert len(answer) >= length
            answer = answer[length:]


@pytest.mark.slow
async def test_a_head_of_many_lines_is_refused(site: Backend) -> None:
    client, server = memory_pair()
    lines = b"a:\r\n" * 3000
    async with trio.open_nursery() as nursery:

        async def serve_it() -> None:
            with pytest.raises(HTTPFailed):
                await serve(server, partial(route, site), memoryview(bytearray(1 << 17)))
            server.close()

        nursery.start_soon(serve_it)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + lines)
        assert (await client.receive_all()).startswith(b"HTTP/1.1 431 ")


@given(st.integers(0, 1 << 37))
def test_dates_are_as_by_python(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True)
