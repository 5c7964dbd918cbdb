"""A request that comes in many pieces: what it may cost, and that ordinary ones are answered."""

import contextlib
from typing import Any

import h11
import pytest
import trio
import trio.testing

from derp.errors import PeerVanished
from derp.http.message import BadRequest
from derp.net.budgets import BYTES_FOR_READ, FREE_READS
from tests.http.test_server import LAST_PROBE, PROBE, Visit, hello, parse, play, post, visit

HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\nX: "


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def count_reads(visited: Visit, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the sizes of the server's reads."""
    reads = []
    read_into = visited.transport.read_into

    def counted(view: memoryview) -> int:
        reads.append(read_into(view))
        return reads[-1]

    monkeypatch.setattr(visited.transport, "read_into", counted)
    return reads


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"x" * 16_000,
        HEAD + b"\r\nX: ".join([b"x"] * 4000),
        post(b"Content-Length: 60000", body=bytes(60_000)),
        post(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 10_000),
    ],
)
@pytest.mark.parametrize("size", [1, 7])
async def test_many_small_pieces_are_refused_soon(
    sent: bytes, size: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    visited = visit(hello)
    reads = count_reads(visited, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visited.serve)
        for piece in in_pieces(sent, size):
            if visited.done.is_set():
                break
            with contextlib.suppress(PeerVanished):
                await visited.client.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        await visited.done.wait()
    assert isinstance(visited.result, BadRequest)
    assert str(visited.result) == "the request comes in too many pieces"
    # It is told, and that is all.
    assert len(reads) <= FREE_READS + 4000 // BYTES_FOR_READ
    [(answer, _)] = parse(await visited.client.receive_all(), "GET")
    assert answer.status_code == 400


async def test_many_small_chunks_are_refused_in_whatever_pieces_they_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """h11 takes its time over each."""
    events = 0
    next_event = h11.Connection.next_event

    def counted(conn: h11.Connection) -> Any:
        nonlocal events
        events += 1
        return next_event(conn)

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    visited = visit(hello)
    sent = post(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 10_000)
    [(answer, _)] = parse(await play(visited, [sent]), "POST")
    assert answer.status_code == 400
    assert events < 3 * FREE_READS + 16_384 // BYTES_FOR_READ


@pytest.mark.parametrize("size", [FREE_READS, BYTES_FOR_READ, 536, 1400])
async def test_ordinary_pieces_are_no_trouble(size: int) -> None:
    """However long it is; and each request starts anew."""
    body = post(b"Content-Length: 60000", body=bytes(60_000))
    long = HEAD + b"x" * 8000 + b"\r\n\r\n"
    pieces = in_pieces(long, size) if size > BYTES_FOR_READ else []
    pieces += in_pieces(body, max(size, BYTES_FOR_READ)) + in_pieces(PROBE, 1) * 3
    methods = ["GET"] * bool(size > BYTES_FOR_READ) + ["POST"] + ["GET"] * 4
    data = await play(visit(hello), [*pieces, LAST_PROBE])
    assert [answer.status_code for answer, _ in parse(data, *methods)] == [200] * len(methods)


async def test_who_goes_on_in_small_pieces_is_not_listened_to_for_long(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    visited = visit(hello)
    reads = count_reads(visited, monkeypatch)
    await play(visited, [LAST_PROBE, *([b"x"] * 2000)], eof=False, may_reset=True)
    assert visited.result is None
    assert len(reads) <= FREE_READS + 2
