"""The machine's own addresses, its gateways, and the warning of a proxy."""

import logging
import socket
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from trio.testing import MockClock

from stun import proxy_detector
from stun.proxy_detector import ProxyDetector, choose_observation
from stun.proxy_signs import MIN_DURATION, MIN_REQUESTS, Observation
from tests.stun.routes import IPV4_HEAD, ipv4_route, ipv6_route

GATEWAY, GATEWAY6 = "203.0.113.1", "2001:db8:ffff::1"
OWN = "an address of this machine itself"
THE_GATEWAY = "the default gateway of this machine"


@pytest.fixture
def _routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "route").write_bytes(IPV4_HEAD + ipv4_route(GATEWAY))
    (tmp_path / "ipv6_route").write_bytes(ipv6_route(GATEWAY6))
    monkeypatch.setattr(proxy_detector, "PROC_NET", tmp_path)
    monkeypatch.setattr(proxy_detector, "CONTAINERS", (tmp_path / "nothing",))


@pytest.fixture
def _container(_routes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_detector, "CONTAINERS", (tmp_path / "nothing", tmp_path / "route"))


def whose(address: str) -> str | None:
    found = choose_observation(ip_address(address).packed)
    if found is None:
        return None
    assert found[0] == Observation(ip_address(address).packed)
    return found[1]


def own_addresses() -> list[str]:
    found = ["127.0.0.1"]
    if socket.has_ipv6 and Path("/proc/net/if_inet6").read_text(encoding="ascii"):
        found.append("::1")
    return found


@pytest.mark.usefixtures("_routes")
def test_addresses_of_the_machine_itself() -> None:
    for address in own_addresses():
        assert whose(address) == OWN


@pytest.mark.usefixtures("_routes")
@pytest.mark.parametrize("address", [GATEWAY, GATEWAY6])
def test_gateways(address: str) -> None:
    assert whose(address) == THE_GATEWAY


@pytest.mark.usefixtures("_routes")
@pytest.mark.parametrize(
    "address",
    ["203.0.113.2", "2001:db8:ffff::2", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "fe80::9"],
)
def test_addresses_of_others(address: str) -> None:
    assert whose(address) is None


def test_without_proc_there_is_no_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_detector, "CONTAINERS", (tmp_path,))
    monkeypatch.setattr(proxy_detector, "PROC_NET", tmp_path / "nothing")
    assert whose(GATEWAY) is None
    assert whose(GATEWAY6) is None
    assert whose("127.0.0.1") == OWN


async def observe(looker: ProxyDetector, address: str, port: int) -> bool:
    return await looker.observe(ip_address(address).packed, port.to_bytes(2, "big"))


async def two_clients(looker: ProxyDetector, address: str, clock: MockClock) -> list[bool]:
    found = []
    for _ in range(MIN_REQUESTS):
        found += [await observe(looker, address, port) for port in (41641, 50001)]
        clock.jump(MIN_DURATION / (MIN_REQUESTS - 1))
    return found


@pytest.mark.usefixtures("_routes")
@pytest.mark.parametrize("address", [GATEWAY, GATEWAY6])
async def test_clients_behind_the_gateway_are_warned_of_once(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    found = await two_clients(ProxyDetector(), address, mock_clock)
    assert found == [True] * (2 * MIN_REQUESTS - 1) + [False]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("derper.stun", logging.WARNING)
    said = record.getMessage()
    assert said.startswith(f"STUN requests of different clients come from {address}, ")
    assert f" {THE_GATEWAY}: " in said
    assert "run the container in the host's network, or rootless with pasta" in said
    assert "\n" not in said


@pytest.mark.usefixtures("_routes")
async def test_the_address_of_another_host_ends_the_observation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not await observe(ProxyDetector(), "203.0.113.2", 1)
    looker = ProxyDetector()
    assert await observe(looker, GATEWAY, 1)
    assert not await observe(looker, "203.0.113.2", 1)
    assert not caplog.records


@pytest.mark.usefixtures("_container")
@pytest.mark.parametrize(
    ("direct", "gateway"), [("203.0.113.2", GATEWAY), ("2001:db8:ffff::2", GATEWAY6)]
)
async def test_in_a_container_the_gateway_is_observed_beside_other_hosts(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture, direct: str, gateway: str
) -> None:
    """As on Docker's bridge: its proxy passes on what comes over IPv6, and nothing else."""
    for first, second in ((direct, gateway), (gateway, direct)):
        looker = ProxyDetector()
        assert await observe(looker, first, 1)
        assert await observe(looker, second, 2)
        assert all(await two_clients(looker, direct, mock_clock))
        assert not caplog.records
        assert not all(await two_clients(looker, gateway, mock_clock))
        (record,) = caplog.records
        assert f" come from {gateway}, {THE_GATEWAY}: " in record.getMessage()
        caplog.clear()


@pytest.mark.usefixtures("_routes")
async def test_loopback_counts_for_nothing(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    looker = ProxyDetector()
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        assert all(await two_clients(looker, address, mock_clock))
    assert await observe(looker, GATEWAY, 1)
    assert await observe(looker, "127.0.0.1", 1)
    assert await observe(looker, GATEWAY, 1)
    assert not caplog.records


async def test_an_address_is_looked_up_once_and_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def choose_observation(address: bytes) -> tuple[Observation, str]:
        asked.append((address, threading.current_thread() is threading.main_thread()))
        return Observation(address), OWN

    monkeypatch.setattr(proxy_detector, "choose_observation", choose_observation)
    looker = ProxyDetector()
    for _ in range(3):
        assert await observe(looker, GATEWAY, 1)
    assert asked == [(ip_address(GATEWAY).packed, False)]
