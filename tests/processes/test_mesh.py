"""Relays as processes, meshed with each other."""

import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path

import pytest
import trio
import trustme

from tests.peers import GONE, Peer, disco
from tests.process import Derper, derper, insecure
from tests.processes.pages import page, until_metric, varz
from tests.support.ends import StreamEnd, upgrade

KEY, OTHER_KEY = "0123456789abcdef" * 4, "fedcba9876543210" * 4


class Region:
    """Relays named localhost, whose certificates are of one authority."""

    def __init__(self, home: Path, authority: trustme.CA) -> None:
        self._home = home
        self._authority = authority
        self._streams = AsyncExitStack()
        self._reserved: list[socket.socket] = []

    def reserve(self) -> int:
        """Return a port that is free until a relay listens on it."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        self._reserved.append(sock)
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port

    def relay(
        self, name: str, *mesh_with: int, port: int = 0, key: str = KEY, host: str = "localhost"
    ) -> AbstractContextManager[Derper]:
        """Run a relay that has its files in a directory of its own, and dials those ports."""
        home = self._home / name
        certs = home / "certs"
        if not certs.exists():
            certs.mkdir(parents=True)
            pair = self._authority.issue_cert("localhost").private_key_and_cert_chain_pem
            for suffix in (".crt", ".key"):
                (certs / f"localhost{suffix}").write_bytes(pair.bytes())
                (certs / f"localhost{suffix}").chmod(0o600)
        psk = home / "psk"
        psk.write_text(f"{key}\n")
        psk.chmod(0o600)
        listed = ",".join(f"{host}:{other}/127.0.0.1" for other in mesh_with)
        flags = ("-hostname", "localhost", "-a", f"127.0.0.1:{port}", "-mesh-psk-file", str(psk))
        return derper(home, *flags, "-mesh-with", listed)

    async def client(self, relay: Derper, peer: Peer | None = None) -> Peer:
        """Log in; as the client that `peer` was, if it is given."""
        tcp = await trio.open_tcp_stream("127.0.0.1", relay.port("HTTPS"))
        self._streams.push_async_callback(trio.aclose_forcefully, tcp)
        stream = trio.SSLStream(tcp, insecure(), server_hostname="localhost")
        await upgrade(stream)
        return await Peer(StreamEnd(stream), peer.private if peer else None).log_in()

    async def close(self) -> None:
        await self._streams.aclose()
        for sock in self._reserved:
            sock.close()


@pytest.fixture
async def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority = trustme.CA()
    bundle = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    found = Region(tmp_path, authority)
    yield found
    await found.close()


async def test_clients_of_two_relays_meet(region: Region) -> None:
    one, two = region.reserve(), region.reserve()
    with (
        region.relay("one", two, one, port=one) as first,
        region.relay("two", one, port=two) as second,
    ):
        listed = f"localhost:{two}/127.0.0.1 localhost:{one}/127.0.0.1"
        first.wait_for(f'"peers with the mesh key are trusted" relays_dialled="{listed}"')
        first.wait_for(f"msg=meshed relay=localhost:{two}/127.0.0.1 key=.* address=127.0.0.1:{two}")
        first.wait_for(f'"this relay itself is in -mesh-with" relay=localhost:{one}/127.0.0.1')
        second.wait_for("msg=meshed")
        alice, bob = await region.client(first), await region.client(second)
        # Each relay is a client of the other one.
        await until_metric(first, "derp_clients_remote", "2", tls=True)
        await until_metric(second, "derp_clients_remote", "2", tls=True)
        shown = page(first, "/debug/", tls=True)
        assert re.search(rf"localhost:{two}/127.0.0.1.*2 clients there, key \[\S+\], 127", shown)
        assert re.search(rf"localhost:{one}/127.0.0.1.*none: it is this relay itself", shown)
        for size in (0, 1400, 65536):
            packet = bytes(range(256)) * 256
            await alice.send_packet(bob.key, packet[:size])
            assert await bob.receive_packet() == (alice.key, packet[:size])
            await bob.send_packet(alice.key, packet[:size])
            assert await alice.receive_packet() == (bob.key, packet[:size])
        await bob.send_packet(alice.key, disco())
        assert await alice.receive_packet() == (bob.key, disco())
        assert varz(first, tls=True)["derp_packets_forwarded_out"] == "3"
        assert varz(first, tls=True)["derp_packets_forwarded_in"] == "4"
        assert varz(first, tls=True)["derp_watchers"] == "1"

        # One relay is killed, and comes back.
        second.signal(signal.SIGKILL)
        second.wait()
        assert await alice.receive() == (GONE, bob.key + b"\0")
        first.wait_for('msg="mesh link lost"')
        with region.relay("two", one, port=two) as second_again:
            second_again.wait_for("msg=meshed")
            bob = await region.client(second_again, bob)
            await until_metric(first, "derp_clients_remote", "2", tls=True)
            await alice.send_packet(bob.key, b"are you there?")
            assert await bob.receive_packet() == (alice.key, b"are you there?")
            # And then stops in good order.
            assert second_again.stop() == 0
            first.wait_for('msg="mesh link lost" .*reason="it restarts"')
        assert first.stop() == 0


async def test_nobody_is_dialled_while_what_is_queued_is_sent(region: Region) -> None:
    with region.relay("two") as second, region.relay("one", second.port("HTTPS")) as first:
        first.wait_for("msg=meshed")
        alice, stalled = await region.client(first), await region.client(first)
        # More than there is room for on the way, so that something is queued.
        while not any(
            name.startswith("derp_packets_dropped") and count != "0"
            for name, count in varz(first, tls=True).items()
        ):
            for _ in range(50):
                await alice.send_packet(stalled.key, bytes(65536))
            await alice.ping()
        first.signal(signal.SIGTERM)
        first.wait_for("msg=stopping")
        second.signal(signal.SIGKILL)
        first.wait_for('msg="mesh link lost"')
        assert first.wait() == 0
        assert not [line for line in first.log if "can't mesh" in line or "bug" in line]


async def test_another_mesh_key(region: Region) -> None:
    with region.relay("one") as first:
        port = first.port("HTTPS")
        with region.relay("two", port, key=OTHER_KEY) as second:
            line = second.wait_for('msg="can\'t mesh".*').string
            assert 'reason="it refuses to be watched: ' in line
            assert 'cure="is the mesh key the same on both relays?"' in line
            first.wait_for("msg=left .*not_permitted: WATCH_CONNS frame from a client without ")
            alice = await region.client(second)
            await alice.ping()
            assert second.stop() == 0


@pytest.mark.parametrize("host", ["localhost", "elsewhere.example"])
async def test_a_certificate_that_is_not_trusted(
    region: Region, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with region.relay("one") as first:
        port = first.port("HTTPS")
        if host == "localhost":
            monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
        with region.relay("two", port, host=host) as second:
            line = second.wait_for('msg="can\'t mesh"').string
            if host == "localhost":
                assert "certificate verify failed: " in line
                assert "SSL_CERT_FILE" in line
            else:
                assert "unrecognized name" in line
                assert f"-mesh-with NAME:{port}/127.0.0.1" in line
            assert second.stop() == 0


async def test_relays_that_are_not_there(region: Region) -> None:
    gone = region.reserve()
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, region.relay("one", gone, silent.getsockname()[1]) as relay:
        relay.wait_for(f'"can\'t mesh" .*TCP 127.0.0.1 port {gone}: connection refused')
        client = await region.client(relay)
        await client.ping()
        # The other one is still being dialled.
        assert relay.stop() == 0


def refusal(home: Path, *flags: str) -> tuple[int, str]:
    with derper(home, *flags, tls=False) as relay:
        code = relay.wait()
    (line,) = relay.log
    return code, line


def test_no_start_without_the_key(tmp_path: Path) -> None:
    missing = str(tmp_path / "psk")
    want = f"derper: -mesh-psk-file {missing!r}: can't be read (No such file or directory); "
    code, line = refusal(tmp_path, "-mesh-psk-file", missing)
    assert (code, line) == (1, f"{want}want a file with the key")
    assert not (tmp_path / "derper.key").exists()
    code, line = refusal(tmp_path, "-mesh-with", "a.example", "-mesh-psk-file=")
    assert (code, line) == (2, "derper: -mesh-with a.example: want -mesh-psk-file with it")


async def test_the_key_in_the_environment_in_development_mode(
    region: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILSCALE_DERPER_MESH_KEY", KEY)
    with region.relay("one") as first, derper_in_development(tmp_path, first) as second:
        second.wait_for("msg=meshed")
        assert second.stop() == 0


@contextlib.contextmanager
def derper_in_development(home: Path, other: Derper) -> Iterator[Derper]:
    """Run a relay on a port of its own choosing, which -dev does not leave it."""
    mesh_with = f"localhost:{other.port('HTTPS')}/127.0.0.1"
    with derper(home, "-dev", "-stun=false", "-mesh-with", mesh_with, tls=False) as relay:
        yield relay
