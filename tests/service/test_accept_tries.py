"""Refusals of an address that comes back: lines from which a ban can be made."""

import contextlib
import logging
from collections.abc import AsyncIterator
from ipaddress import ip_network

import nacl.public
import pytest
import trio
import trio.testing

from derp.errors import (
    ConnectionEnd,
    HTTPFailed,
    InternalFault,
    LoginRefused,
    NotAdmitted,
    PeerVanished,
    ProxyHeaderFailed,
    ProxyNotListed,
    TLSFailed,
)
from derp.http.message import BadRequest
from derp.log import Coalescer
from derp.net.address import Endpoint
from derp.relay.pending import PendingConnections
from derp.service.accept import TRY_LINES, TRY_LINES_BURST, Acceptor, try_lines
from derp.session.state import RelayState
from tests.service.test_accept_pending import lines

STRANGER = "203.0.113.7"
NOT_ADMITTED = NotAdmitted("nodekey:00 is refused by file: not listed")


@contextlib.asynccontextmanager
async def acceptor() -> AsyncIterator[Acceptor]:
    async with trio.open_nursery() as nursery:
        pending = PendingConnections(proxies=(ip_network("10.0.0.0/8"),))
        key = nacl.public.PrivateKey.generate()
        state = RelayState(key, nursery, write_timeout=2, pending=pending)
        yield Acceptor(state, nursery, lambda _: None, None, None, Coalescer())  # type: ignore[arg-type, return-value]


def refuse(acceptor: Acceptor, host: str, end: ConnectionEnd = NOT_ADMITTED) -> None:
    remote = Endpoint(host, 1024)
    acceptor._report(end, remote, {"remote": str(remote)})


def tries(caplog: pytest.LogCaptureFixture, host: str = STRANGER) -> list[int | None]:
    return [line["tries"] for line in lines(caplog, "refused") if host in line["remote"]]  # type: ignore[misc]


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize(
    "end", [NOT_ADMITTED, LoginRefused("x"), HTTPFailed("x"), BadRequest(400, "x"), TLSFailed("x")]
)
async def test_three_tries_in_ten_minutes_are_three_lines(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, end: ConnectionEnd
) -> None:
    """However many others come meanwhile, for the same reason."""
    async with acceptor() as front:
        for start in range(0, 600, 200):
            for n in range(100):
                refuse(front, f"198.{start // 200}.{n}.1", end)
            await trio.sleep(199)
            refuse(front, STRANGER, end)
            await trio.sleep(1)
        assert tries(caplog) == [1, 2, 3]
        assert len(lines(caplog, "refused")) < 150


@pytest.mark.parametrize(
    ("host", "end"),
    [
        (STRANGER, NotAdmitted("x is refused by tailscaled: no such socket", authoritative=False)),
        (STRANGER, PeerVanished("x")),
        (STRANGER, InternalFault("x")),
        (STRANGER, ProxyHeaderFailed("x")),
        (STRANGER, ProxyNotListed()),
        ("127.0.0.1", NOT_ADMITTED),
        ("::1", NOT_ADMITTED),
        ("::ffff:127.0.0.1", NOT_ADMITTED),
        ("10.0.0.1", NOT_ADMITTED),
        ("::ffff:10.0.0.1", NOT_ADMITTED),
    ],
)
async def test_what_says_nothing_about_the_address_is_no_try(
    caplog: pytest.LogCaptureFixture, host: str, end: ConnectionEnd
) -> None:
    async with acceptor() as front:
        for _ in range(20):
            refuse(front, host, end)
        assert tries(caplog, host) == [None] * 5


async def test_in_all_the_lines_are_bounded(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with acceptor() as front:
        for second in range(10):
            for n in range(500):
                refuse(front, f"10{second % 5}.{n // 250}.{n % 250}.1")
            await trio.sleep(1)
        most = 5 + 2 * (TRY_LINES_BURST + 10 * TRY_LINES)
        assert TRY_LINES_BURST < len(lines(caplog, "refused")) <= most


def test_workers_share_them() -> None:
    tries = try_lines(10)
    networks = [f"192.0.{n}" for n in range(100)]
    logged = [tries.note(f"{network}.1", f"{network}.0/24", 0.0)[1] for network in networks]
    assert sum(logged) == TRY_LINES_BURST // 10
