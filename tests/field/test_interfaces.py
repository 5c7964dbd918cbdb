"""A host with two networks: the relay serves one of them, and marks what it sends to its peers.

The host has an interface to each of two other machines, all in network namespaces made here.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from stun.message import build_binding_request
from tests.interop.mesh import MESH_KEY, mesh
from tests.interop.netns import Namespace, link, skip_unless_possible
from tests.interop.relay import Relay, TestCA, running

PATIENCE = 20.0
OURS = [sys.executable, "-m", "derp"]
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@attrs.frozen
class Host:
    """The host, and another machine at each of its interfaces, a0 and b0."""

    itself: Namespace
    a: Namespace
    b: Namespace

    def relay(self, folder: Path, *flags: str, **more: Any) -> Relay:
        """A relay in the host, at all addresses unless told otherwise."""
        folder.mkdir(exist_ok=True)
        fields = {"listen": "", "stun": True, "prefix": self.itself.prefix, "flags": flags, **more}
        return Relay("relay", OURS, folder, tls=False, **fields)

    def run(self, *argv: str, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Run derper in the host, to its end."""
        command = [*self.itself.prefix, *prefix, *OURS, *argv]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


@pytest.fixture
def host() -> Iterator[Host]:
    skip_unless_possible("no host with two networks")
    with ExitStack() as stack:
        spaces = []
        for _ in range(3):
            spaces.append(Namespace.make())
            stack.callback(spaces[-1].close)
        itself, a, b = spaces
        for number, (name, other) in enumerate((("a0", a), ("b0", b)), 1):
            link(itself, name, other, "eth0")
            itself.address(name, f"10.{number}.0.1/24", f"fd00:{number}::1/64")
            # A link-local address, too: the kernel's own has to be found unique first.
            addresses = (f"10.{number}.0.2/24", f"fd00:{number}::2/64", f"fe80::{number}:2/64")
            other.address("eth0", *addresses)
            # To the host's other address, too: the relay alone keeps out what is to be kept out.
            other.run("ip", "route", "add", "default", "via", f"10.{number}.0.1")
        yield Host(itself, a, b)


def answers(space: Namespace, host: str, port: int) -> bool:
    """Whether a relay answers there; to refuse the connection is the only other answer."""
    try:
        sock = space.connect((host, port))
    except ConnectionRefusedError:
        return False
    with sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def answers_stun(space: Namespace, own: str, host: str, port: int) -> bool:
    with space.udp(own) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((host, port))
        try:
            sock.send(build_binding_request(bytes(12)))
            return sock.recv(100).startswith(b"\x01\x01")
        except ConnectionRefusedError:
            return False


@WORKERS
def test_one_interface_is_served_and_no_other(host: Host, tmp_path: Path, workers: str) -> None:
    relay = host.relay(tmp_path, "-interface", "a0", "-workers", workers)
    with running(relay):
        relay.wait_for_log("STUN server listening")
        if workers != "1":
            relay.wait_for_log("workers share the work")
        for address in ("10.1.0.1", "fd00:1::1"):
            assert [answers(host.a, address, relay.port) for _ in range(9)] == [True] * 9
        assert not answers(host.b, "10.2.0.1", relay.port)
        assert not answers(host.b, "10.1.0.1", relay.port)
        assert not answers(host.b, "fd00:2::1", relay.port)
        assert not answers(host.itself, "127.0.0.1", relay.port)
        assert answers_stun(host.a, "10.1.0.2", "10.1.0.1", relay.stun_port)
        assert answers_stun(host.a, "fd00:1::2", "fd00:1::1", relay.stun_port)
        assert not answers_stun(host.b, "10.2.0.2", "10.2.0.1", relay.stun_port)
        # Its own health check finds it all the same.
        checked = host.run("healthcheck", *relay.arguments())
        assert (checked.returncode, checked.stderr) == (0, "")
        where = f"10.1.0.1:{relay.port}, STUN at 10.1.0.1:{relay.stun_port}"
        assert checked.stdout.startswith(f"healthy: DERP at {where}")


def test_two_relays_have_one_port_at_two_interfaces(host: Host, tmp_path: Path) -> None:
    here = host.relay(tmp_path / "a", "-interface", "a0")
    ports = {"port": here.port, "stun_port": here.stun_port}
    there = host.relay(tmp_path / "b", "-interface", "b0", **ports)
    with running(here), running(there):
        there.wait_for_log("STUN server listening")
        assert answers(host.a, "10.1.0.1", here.port)
        assert answers(host.b, "10.2.0.1", here.port)
        here.stop()
        assert not answers(host.a, "10.1.0.1", here.port)
        assert answers(host.b, "10.2.0.1", here.port)


def test_a_loopback_address_is_open_all_the_same(host: Host, tmp_path: Path) -> None:
    relay = host.relay(tmp_path, "-interface", "a0", listen="127.0.0.1")
    with running(relay):
        assert answers(host.itself, "127.0.0.1", relay.port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_link_local_address(host: Host, tmp_path: Path, workers: str) -> None:
    own = "fe80::51"
    host.itself.address("a0", f"{own}/64")
    flags = ("-stun-addr", f"{own}%a0", "-workers", workers)
    with running(host.relay(tmp_path, *flags, listen=f"[{own}%a0]")) as relay:
        relay.wait_for_log("STUN server listening")
        assert answers(host.a, f"{own}%eth0", relay.port)
        assert not answers(host.a, "10.1.0.1", relay.port)
        assert not answers(host.a, "fd00:1::1", relay.port)


def test_one_ip_version(host: Host, tmp_path: Path) -> None:
    with running(host.relay(tmp_path, listen="ipv6@")) as relay:
        relay.wait_for_log("STUN server listening")
        assert answers(host.a, "fd00:1::1", relay.port)
        assert not answers(host.a, "10.1.0.1", relay.port)
        assert answers_stun(host.a, "fd00:1::2", "fd00:1::1", relay.stun_port)
        assert not answers_stun(host.a, "10.1.0.2", "10.1.0.1", relay.stun_port)


@pytest.fixture
def pair(host: Host, test_ca: TestCA, tmp_path: Path) -> list[Relay]:
    """A relay at the host, and one at the machine b, which the host dials at 10.9.0.1.

    Its routes lead there through the machine a, which has no such address.
    """
    one, other = mesh(tmp_path, test_ca, {"one": OURS, "other": OURS})
    one.flags = [flag.replace("/127.0.0.1", "/10.9.0.1") for flag in one.flags]
    other.flags = other.flags[:2]
    one.prefix, other.prefix, other.listen = host.itself.prefix, host.b.prefix, ""
    host.b.run("ip", "address", "add", "10.9.0.1/32", "dev", "lo")
    host.itself.run("ip", "route", "add", "10.9.0.1/32", "via", "10.1.0.2")
    return [one, other]


@WORKERS
def test_links_go_out_by_the_interface(host: Host, pair: list[Relay], workers: str) -> None:
    one, other = pair
    host.itself.run("ip", "route", "add", "10.9.0.1/32", "via", "10.2.0.2", "metric", "9")
    one.flags = [*one.flags, "-interface", "b0", "-workers", workers]
    with running(other), running(one):
        one.wait_for_log(r"meshed relay=localhost:\d+")


def test_links_are_marked(host: Host, pair: list[Relay]) -> None:
    one, other = pair
    host.itself.run("ip", "rule", "add", "fwmark", "0x51", "table", "51")
    host.itself.run("ip", "route", "add", "10.9.0.1/32", "via", "10.2.0.2", "table", "51")
    one.flags = [*one.flags, "-mesh-fwmark", "0x51"]
    with running(other), running(one):
        one.wait_for_log(r"meshed relay=localhost:\d+")


def test_without_a_mark_they_go_astray(host: Host, pair: list[Relay]) -> None:
    one, other = pair
    with running(other), running(one):
        one.wait_for_log("can't mesh")


UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--no-new-privs")


def test_a_mark_takes_a_capability(host: Host, tmp_path: Path) -> None:
    (tmp_path / "psk").write_text(MESH_KEY.hex())
    flags = ("-dev", "-mesh-psk-file", str(tmp_path / "psk"), "-mesh-with", "localhost")
    flags = (*flags, "-mesh-fwmark", "81")
    ended = host.run(*flags, prefix=UNPRIVILEGED)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines(keepends=True)[-1] == (
        "derper: -mesh-fwmark 0x51: not permitted; give derper the capability CAP_NET_ADMIN: "
        "AmbientCapabilities= and CapabilityBoundingSet= in a unit, --cap-add NET_ADMIN for a "
        "container\n"
    )


def test_an_interface_that_is_not_there(host: Host, tmp_path: Path) -> None:
    ended = host.run("-a", ":0", "-c", str(tmp_path / "key"), "-interface", "wlan0")
    assert (ended.returncode, ended.stdout) == (1, "")
    start = "derper: -interface wlan0: this machine has no such interface; it has "
    names = ended.stderr.removeprefix(start).rstrip("\n").split(", ")
    assert {"lo", "a0", "b0"} <= set(names)
    assert list(tmp_path.iterdir()) == []


def test_a_link_local_address_of_no_interface(host: Host, tmp_path: Path) -> None:
    ended = host.run("-a", "[fe80::1%wlan0]:0", "-c", str(tmp_path / "key"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "derper: can't listen on TCP [fe80::1%wlan0]:0: this machine has no interface wlan0\n"
    )
