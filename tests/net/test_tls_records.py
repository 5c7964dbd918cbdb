"""TLS records that bring no data, or hardly any: what they may cost."""

import contextlib
import random
import select
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from derp.errors import TLSFailed
from derp.net.budgets import (
    BYTES_FOR_READ,
    DATA_FOR_EMPTY_RECORD,
    FREE_EMPTY_RECORDS,
    FREE_READS,
    ReadBudget,
)
from derp.net.tls import FEED_RECORDS, FEEDS_PER_TURN, FIRST_FEED_RECORDS, TLSTransport
from derp.net.tlsengine import TLSEngine
from tests.net.records import ALERT, APPLICATION_DATA, RecordWriter
from tests.net.tls_peer import (
    HERE,
    THERE,
    RawClient,
    Sockets,
    by_hand,
    empty,
    raw_connected,
)

CLOSE_NOTIFY = b"\x01\x00"


async def feed(transport: TLSTransport, client: RawClient, data: bytes) -> int:
    """Send `data` and have the server read all of it; return how much plaintext it found."""
    view = memoryview(bytearray(1 << 20))
    found = 0
    while data or transport.more or select.select([transport._socket], [], [], 0)[0]:
        with contextlib.suppress(BlockingIOError):
            data = data[client.stream.socket._sock.send(data) :]  # type: ignore[attr-defined]
        await transport.wait_readable()
        found += max(0, transport.read_into(view))
    return found


def data_of(writer: RecordWriter, count: int) -> bytes:
    return b"".join(writer.record(APPLICATION_DATA, b"x") for _ in range(count))


def updates(writer: RecordWriter, count: int) -> bytes:
    return b"".join(writer.key_update() for _ in range(count))


def empties(writer: RecordWriter, count: int) -> bytes:
    """Records of no data; OpenSSL itself takes no more than 32 of them in a row."""
    return b"".join(writer.record(APPLICATION_DATA, b"") for _ in range(count))


async def test_records_without_data_come_to_an_end(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    few = updates(writer, FREE_EMPTY_RECORDS)
    assert await feed(transport, client, few + writer.record(APPLICATION_DATA, b"x")) == 1
    # A byte of data earns nothing back.
    with pytest.raises(TLSFailed, match="records without data"):
        await feed(transport, client, updates(writer, 1))
    assert empty(engine)
    with pytest.raises(TLSFailed, match="records without data"):
        transport.read_into(memoryview(bytearray(1)))
    transport.abort()


@pytest.mark.parametrize("kind", [updates, empties])
async def test_data_between_them_must_be_in_proportion(
    kind: Callable[[RecordWriter, int], bytes],
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    tmp_path: Path,
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    data = writer.record

    async def send_both() -> int:
        return await feed(transport, client, kind(writer, 8) + data(APPLICATION_DATA, bytes(500)))

    for _ in range(FREE_EMPTY_RECORDS // 8):
        assert await send_both() == 500
    with pytest.raises(TLSFailed, match="records without data"):
        await send_both()
    assert empty(engine)
    transport.abort()


async def test_much_data_earns_records_without_any(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    most = bytes(1 << 14)
    for _ in range(3):
        await feed(transport, client, updates(writer, FREE_EMPTY_RECORDS))
        assert transport._budget is not None
        times = FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD // len(most)
        sent = b"".join(writer.record(APPLICATION_DATA, most) for _ in range(times))
        assert await feed(transport, client, sent) == times * len(most)
        # As if there had never been any.
        assert transport._budget is None
    transport.abort()


async def test_a_turn_has_few_records_of_data(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    most = FEED_RECORDS * FEEDS_PER_TURN
    data = random.Random(1).randbytes(3 * most + 100)
    sent = b"".join(writer.record(APPLICATION_DATA, bytes((byte,))) for byte in data)
    view = memoryview(bytearray(1 << 20))
    found = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, sent)
        await trio.testing.wait_all_tasks_blocked()
        while len(found) < len(data):
            await transport.wait_readable()
            count = transport.read_into(view)
            found += view[:count]
            assert count <= most
            assert transport.more or len(found) == len(data) or count < most
    assert found == data
    transport.abort()


async def test_a_turn_has_fewer_records_without_data(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    view = memoryview(bytearray(1 << 20))
    first = FIRST_FEED_RECORDS
    sent = data_of(writer, first) + updates(writer, 8) + data_of(writer, 2 * FEED_RECORDS)
    await client.stream.send_all(sent)
    await transport.wait_readable()
    assert transport.read_into(view) == first + FEED_RECORDS - 8
    assert transport.more
    # Others have had their turn.
    assert transport.read_into(view) == FEED_RECORDS + 8
    assert not transport.more

    await client.stream.receive_some(1 << 20)
    await client.stream.send_all(updates(writer, 1000))
    await transport.wait_readable()
    with pytest.raises(TLSFailed):
        transport.read_into(view)
    answers = await client.stream.receive_some(1 << 20)
    assert answers.count(b"\x17\x03\x03") <= FIRST_FEED_RECORDS
    transport.abort()


@pytest.mark.parametrize("view_size", [1 << 20, 4000])
async def test_they_are_counted_where_the_data_between_fills_the_view(
    view_size: int,
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    tmp_path: Path,
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    view = memoryview(bytearray(view_size))

    async def send_both() -> None:
        """Have them in the same read as the rest of a large record."""
        first = writer.record(APPLICATION_DATA, bytes(3900))
        rest = updates(writer, 10) + writer.record(APPLICATION_DATA, bytes(200))
        for piece in (first[:3800], first[3800:] + rest):
            await client.stream.send_all(piece)
            await transport.wait_readable()
            transport.read_into(view)
        while transport.more:
            transport.read_into(view)

    for _ in range(FREE_EMPTY_RECORDS // 10):
        await send_both()
    with pytest.raises(TLSFailed, match="records without data"):
        await send_both()
    transport.abort()


@pytest.mark.parametrize("last", ["close_notify", "spoiled"])
async def test_answers_of_openssl_go_to_their_own_connection(
    last: str, engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    other, neighbour = await raw_connected(engine, client_context, sockets)
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    # Answered in the same read that finds the end.
    sent = updates(writer, 5)
    end = writer.record(ALERT, CLOSE_NOTIFY)
    await client.stream.send_all(sent + (end if last == "close_notify" else end[:-1] + b"?"))
    view = memoryview(bytearray(1000))
    await transport.wait_readable()
    if last == "close_notify":
        assert transport.read_into(view) == -1
    else:
        with pytest.raises(TLSFailed):
            transport.read_into(view)
    assert empty(engine)
    other.write(b"mine")
    neighbour.incoming.write(await neighbour.stream.receive_some())
    assert neighbour.tls.read(100) == b"mine"
    transport.abort()
    other.abort()


@pytest.mark.parametrize("seed", range(20))
async def test_any_records_in_any_pieces(
    seed: int, engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    sent = plain = b""
    for _ in range(chance.choice((10, 400))):
        data = chance.randbytes(chance.choice((1, 1, 30, 100, 1400, 1 << 14)))
        plain += data
        sent += writer.record(APPLICATION_DATA, data)
        if not chance.randrange(20):
            sent += chance.choice((updates, empties))(writer, 1)
    view = memoryview(bytearray(chance.choice((3000, 20_000, 1 << 20))))
    found = bytearray()

    async def send() -> None:
        rest = sent
        while rest:
            size = chance.choice((1, 4, 30, 1500, 100_000))
            await client.stream.send_all(rest[:size])
            rest = rest[size:]
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.fail_after(20):
            while len(found) < len(plain):
                await transport.wait_readable()
                count = transport.read_into(view)
                assert empty(engine)
                assert count >= 0
                found += view[:count]
    assert found == plain
    transport.abort()


async def test_what_openssl_answers_waits_its_turn_and_is_bounded(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport, client, writer = await by_hand(engine, client_context, sockets, tmp_path)
    big = random.Random(5).randbytes(400_000)
    transport.write(big)
    assert transport.buffered
    before = transport.buffered
    sent = updates(writer, 8)
    await feed(transport, client, sent + writer.record(APPLICATION_DATA, b"x"))
    assert transport.buffered > before
    transport.write(b"after all that")
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        while len(received) < len(big) + 14:
            client.incoming.write(await client.stream.receive_some())
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    received += client.tls.read(1 << 16)
    assert received == big + b"after all that"

    transport.write(big)
    monkeypatch.setattr("derp.net.tls.MAX_BUFFERED", transport.buffered + 100)
    with pytest.raises(TLSFailed, match="asks for answers and does not read them"):
        await feed(transport, client, updates(writer, 8))
    transport.abort()


async def test_a_handshake_in_many_pieces_is_ended(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    ours, stream = sockets()
    client = RawClient(client_context, stream)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    reads = 0

    class Counted(TLSTransport):
        __slots__ = ()

        def _receive(self, view: memoryview) -> int:
            nonlocal reads
            reads += 1
            return super()._receive(view[:1])

    transport = Counted(ours, THERE, HERE, engine)
    hello = client.outgoing.read()
    await stream.send_all(hello)
    with pytest.raises(TLSFailed, match="in too many pieces"):
        await transport.handshake()
    assert reads < FREE_READS + len(hello) // BYTES_FOR_READ + 2
    assert empty(engine)
    transport.abort()


def test_reads_are_many_enough_for_the_smallest_segments() -> None:
    budget = ReadBudget()
    assert all(budget.spend(536) for _ in range(10_000))


def test_reads_are_in_proportion_to_what_they_bring() -> None:
    budget = ReadBudget()
    assert [budget.spend(0) for _ in range(FREE_READS + 1)] == [True] * FREE_READS + [False]
    budget = ReadBudget()
    reads = 0
    while budget.spend(BYTES_FOR_READ - 1):
        reads += 1
    assert reads == FREE_READS * BYTES_FOR_READ
