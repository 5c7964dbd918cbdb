"""A connection to a hidden relay: told apart, answered, ended in time."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from derp.errors import ConnectionEnd, HTTPFailed, NoRoom, PeerVanished
from derp.http.hidden.server import NGINX, serve
from derp.http.knownheads import KnownHeads
from derp.http.message import Request
from derp.net.budgets import FREE_READS
from derp.relay.pending import COST, PendingConnections
from tests.memory_transport import MemoryTransport, memory_pair

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
DERP = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"


def is_derp(request: Request) -> bool:
    return request.header(b"upgrade") == "DERP"


@attrs.define
class Visit:
    """One connection: the client's end, and how `serve` ended."""

    client: MemoryTransport
    transport: MemoryTransport
    more: dict[str, Any]
    ended: trio.Event = attrs.field(factory=trio.Event)
    result: bytes | ConnectionEnd | None = None

    async def serve(self) -> None:
        scratch = memoryview(bytearray(1 << 16))
        try:
            self.result = await serve(self.transport, is_derp, scratch, **self.more)
        except ConnectionEnd as end:
            self.result = end
        self.transport.close()
        self.ended.set()


def visit(nursery: trio.Nursery, **more: Any) -> Visit:
    client, transport = memory_pair(capacity=1 << 20)
    made = Visit(client, transport, more)
    nursery.start_soon(made.serve)
    return made


def statuses(received: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1.1 (\d+) ", received)


async def play(*pieces: bytes, **more: Any) -> tuple[bytes, bytes | ConnectionEnd | None]:
    """Send the pieces and an end; return what comes back, and the result."""
    async with trio.open_nursery() as nursery:
        made = visit(nursery, **more)
        for piece in pieces:
            made.client.write(piece)
        made.client.send_eof()
        received = b""
        with contextlib.suppress(PeerVanished):
            received = await made.client.receive_all()
        await made.ended.wait()
    return received, made.result


async def test_what_clients_ask_is_handed_on_whole() -> None:
    assert await play(DERP + b"frames") == (b"", DERP + b"frames")
    assert await play(DERP[:20], DERP[20:]) == (b"", DERP)
    # Also after other requests, and without what came before.
    received, result = await play(GET + b"\r\n\r\n" + DERP + b"more")
    assert (statuses(received), result) == ([b"404"], DERP + b"more")


async def test_a_head_that_is_known_is_not_read_again() -> None:
    known = KnownHeads()
    known.add(DERP, Request("GET", "/derp", "/derp", "", "x", "1.1", (), ""))
    seen: list[Request] = []
    client, transport = memory_pair()
    client.write(DERP + b"frames")
    scratch = memoryview(bytearray(1 << 16))

    def note(request: Request) -> bool:
        seen.append(request)
        return True

    assert await serve(transport, note, scratch, known=known) == DERP + b"frames"
    assert seen == []


async def test_others_get_404_again_and_again() -> None:
    received, result = await play(GET + b"\r\n", GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert statuses(received) == [b"404"] * 3
    assert received.count(b"Connection: close") == 1
    assert result is None


async def test_each_request_may_take_some_pieces() -> None:
    pieces = [GET[:5], GET[5:], b"\r\n"] * (2 * FREE_READS)
    received, result = await play(*pieces)
    assert (statuses(received), result) == ([b"404"] * 2 * FREE_READS, None)


@pytest.mark.parametrize(
    ("data", "status"), [(b"\x80", b"400"), (b"GET /" + b"a" * 9000, b"414"), (GET + b" ", b"400")]
)
async def test_a_fault_is_answered_and_told(data: bytes, status: bytes) -> None:
    received, result = await play(data)
    assert statuses(received) == [status]
    assert isinstance(result, HTTPFailed)


async def test_bodies_are_skipped() -> None:
    posted = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel"
    received, result = await play(posted, b"lo" + GET + b"\r\n")
    assert (statuses(received), result) == ([b"404", b"404"], None)
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    received, _ = await play(chunked + b"3\r\nabc\r", b"\n0\r\n\r\n" + GET + b"\r\n")
    assert statuses(received) == [b"404", b"404"]
    received, _ = await play(chunked + b"x" + GET + b"\r\n")
    assert statuses(received) == [b"404"]
    assert b"Connection: close" in received
    received, _ = await play(chunked, b"x" + GET + b"\r\n")
    assert statuses(received) == [b"404"]
    received, _ = await play(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
    assert statuses(received) == [b"413"]


async def test_plain_http_on_a_port_with_tls() -> None:
    received, result = await play(DERP, to_https=True)
    assert (statuses(received), result) == ([b"400"], None)
    assert b"The plain HTTP request was sent to HTTPS port" in received


async def test_who_leaves_gets_no_answer() -> None:
    assert await play() == (b"", None)
    assert await play(GET) == (b"", None)


Say = Callable[[Visit], object]


@pytest.mark.parametrize(
    ("say", "seconds"),
    [
        (lambda made: None, NGINX.header),
        (lambda made: made.client.write(GET), NGINX.header),
        (lambda made: made.client.write(GET + b"\r\n"), NGINX.idle),
    ],
    ids=["nothing", "half a head", "nothing more"],
)
async def test_who_is_silent_gets_no_answer_either(
    say: Say, seconds: float, mock_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        made = visit(nursery)
        say(made)
        await wait_all_tasks_blocked()
        mock_clock.jump(seconds - 0.5)
        await wait_all_tasks_blocked()
        assert not made.ended.is_set()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert made.ended.is_set()
        assert statuses(await made.client.receive_all()) in ([], [b"404"])


async def test_after_an_answer_that_ends_it_the_rest_is_read_for_a_while(
    mock_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        made = visit(nursery)
        made.client.write(b"\x80")
        # The end comes at once, while this side may go on.
        assert statuses(await made.client.receive_all()) == [b"400"]
        for _ in range(7):
            made.client.write(b"more")
            await wait_all_tasks_blocked()
            assert not made.ended.is_set()
            mock_clock.jump(NGINX.pause - 0.5)
        await wait_all_tasks_blocked()
        assert made.ended.is_set()


async def test_half_a_body_is_waited_for_no_longer(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        made = visit(nursery)
        made.client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        assert statuses(await made.client.receive()) == [b"404"]
        await wait_all_tasks_blocked()
        assert not made.ended.is_set()
        mock_clock.jump(NGINX.pause + 1)
        await wait_all_tasks_blocked()
        assert made.ended.is_set()


async def test_a_head_in_very_many_pieces_ends_the_connection() -> None:
    head = GET + b"A: " + b"a" * 1000
    received, result = await play(*(head[at : at + 1] for at in range(len(head))))
    assert (received, str(result)) == (b"", "the request comes in too many pieces")


async def test_what_is_kept_counts() -> None:
    connections = PendingConnections(memory=COST + (20 << 10))
    pending = connections.admit("192.0.2.1", 0.0)
    received, result = await play(GET + (b"A: " + b"a" * 7000 + b"\r\n") * 3, pending=pending)
    assert received == b""
    assert isinstance(result, NoRoom)
