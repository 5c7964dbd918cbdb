"""The deadlines of TLS handshakes."""

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from certs.context import make_context
from certs.metacert import make_metacert
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from derp.errors import ConnectionEnd
from derp.net.tlsengine import TLSEngine
from derp.relay.pending import Pending, PendingConnections
from derp.service.handshakes import ENDS_PER_TURN, TLS_TIMEOUT
from tests.service.test_accept_pending import Front, is_open, lines, running
from tests.turns import counted_turns

HELLO = b"\x16\x03\x01\x02\x00\x01"


@contextlib.asynccontextmanager
async def with_tls(*, rate: float = 0) -> AsyncIterator[Front]:
    now = datetime.now(UTC)
    certificate, key = make_self_signed(ip_address("127.0.0.1"), now)
    pair = make_pair(certificate, key, chain_from="test", key_from="test")
    context = make_context(pair, make_metacert(bytes(range(32)), now), "127.0.0.1")
    async with running(PendingConnections(rate=rate)) as front, trio.open_nursery() as nursery:
        front.acceptor.engine = TLSEngine(context)
        nursery.start_soon(front.acceptor.handshakes.run)
        yield front
        assert not front.acceptor.handshakes._deadlines
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [b"", HELLO])
async def test_one_that_lasts_too_long_is_ended(
    sent: bytes, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with with_tls() as front:
        for second in range(3):
            assert trio.current_time() == pytest.approx(second)
            front.connect().sendall(sent)
            await trio.sleep(1)
        for second in range(3):
            await trio.sleep_until(TLS_TIMEOUT + second - 0.01)
            assert [is_open(client) for client in front.clients].count(False) == second
            await trio.sleep_until(TLS_TIMEOUT + second + 0.01)
            assert [is_open(client) for client in front.clients].count(False) == second + 1
        assert front.ends() == {"tls_failed": 3}
    reasons = {line["reason"] for line in lines(caplog, "refused")}
    assert reasons == {"tls_failed: no TLS handshake within 30 s"}


async def test_one_that_is_done_in_time_leaves_its_connection_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with with_tls() as front:
        client = trio.SocketStream(trio.socket.from_stdlib_socket(front.connect().dup()))
        await trio.sleep(TLS_TIMEOUT - 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        tls = trio.SSLStream(client, context)
        await tls.do_handshake()
        await trio.sleep(TLS_TIMEOUT - 1)
        await tls.send_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await tls.receive_some()).startswith(bytes.fromhex("0100000028"))
        await client.aclose()


async def test_few_go_in_one_turn(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_tls(rate=1000) as front:
        for n in range(10 * ENDS_PER_TURN):
            front.connect(f"192.0.{n}.7")
        with counted_turns() as turns:
            close = Pending.close

            def note(pending: Pending, end: ConnectionEnd) -> None:
                turns.note()
                close(pending, end)

            monkeypatch.setattr(Pending, "close", note)
            await trio.sleep(TLS_TIMEOUT + 1)
        assert front.ends() == {"tls_failed": 10 * ENDS_PER_TURN}
        assert turns.events.total() == 10 * ENDS_PER_TURN
        assert turns.most <= ENDS_PER_TURN
