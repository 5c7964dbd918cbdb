"""A relay of several processes, seen from outside: it is one relay."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
import trustme

from derp.wire.keys import node_public_text
from stun.message import build_binding_request
from tests.patience import PATIENCE
from tests.peers import RESTARTING, Peer
from tests.process import Derper, derper, insecure
from tests.processes.pages import page, until_metric, varz
from tests.support.ends import StreamEnd, upgrade
from tests.support.waiting import until, until_async

CONSISTENT = "derp.Server ConsistencyCheck okay"


class Clients:
    """DERP clients over plain TCP; each knows which worker it is at from the log."""

    def __init__(self) -> None:
        self.streams = AsyncExitStack()

    async def join(self, relay: Derper, like: Peer | None = None) -> tuple[Peer, int]:
        """Log in, as the client that `like` was if it is given; return the worker, too."""
        stream = await trio.open_tcp_stream("127.0.0.1", relay.port("HTTP"))
        self.streams.push_async_callback(trio.aclose_forcefully, stream)
        local = stream.socket.getsockname()[1]
        await upgrade(stream)
        peer = Peer(StreamEnd(stream), like.private if like else None)
        await peer.log_in()
        joined = relay.wait_for(rf"msg=joined remote=127.0.0.1:{local} .*worker=(\d)")
        return peer, int(joined[1])

    async def join_at(self, relay: Derper, worker: int, like: Peer | None = None) -> Peer:
        """Log in again and again until it is at this worker; each try is another connection."""
        for _ in range(64):
            peer, found = await self.join(relay, like)
            if found == worker:
                return peer
        raise AssertionError(f"64 connections, and none came to worker {worker}")


@pytest.fixture
def every_join_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only at level debug has every join of one key a line, however many there are."""
    monkeypatch.setenv("DERP_DEBUG_LOGS", "1")


@pytest.fixture
async def clients(every_join_is_logged: None) -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.streams.aclose()


@pytest.fixture
def relay(tmp_path: Path, every_join_is_logged: None) -> Iterator[Derper]:
    with derper(tmp_path, "-workers", "2", tls=False) as running:
        running.wait_for("workers share the work")
        yield running


async def meet(one: Peer, other: Peer) -> None:
    """Send a packet until it arrives: a worker hears of another's clients after a moment."""
    with trio.fail_after(PATIENCE):
        while True:
            await one.send_packet(other.key, b"hello")
            with trio.move_on_after(0.1):
                assert await other.receive_packet() == (one.key, b"hello")
                return


async def ended(peer: Peer) -> None:
    """Wait until the relay has closed the connection."""
    with suppress(EOFError, trio.BrokenResourceError):
        while True:
            await peer.receive()


def children(relay: Derper) -> dict[int, int]:
    """Process IDs of the workers, by their numbers."""
    facts = re.findall(r"Worker (\d):</b>.*?process (\d+)", page(relay, "/debug/"))
    return {int(number): int(pid) for number, pid in facts}


async def test_clients_of_both_workers_meet(relay: Derper, clients: Clients) -> None:
    alice, bob = [await clients.join_at(relay, worker) for worker in (0, 1)]
    await meet(alice, bob)
    await meet(bob, alice)
    before = varz(relay)
    for size in (0, 1400, 65536):
        packet = (bytes(range(256)) * 256)[:size]
        await alice.send_packet(bob.key, packet)
        assert await bob.receive_packet() == (alice.key, packet)
        await bob.send_packet(alice.key, packet)
        assert await alice.receive_packet() == (bob.key, packet)
    after = varz(relay)
    for name in ("derp_packets_received", "derp_packets_sent"):
        assert int(after[name]) - int(before[name]) == 6
    assert after["derp_packets_forwarded_in"] == after["derp_packets_forwarded_out"] == "0"
    assert after["derper_workers"] == "2"
    assert page(relay, "/debug/check") == CONSISTENT


async def test_a_client_that_comes_back_to_another_worker_gets_its_packets(
    relay: Derper, clients: Clients
) -> None:
    """Its old connection still hangs there, as after a change of network."""
    alice, old = [await clients.join_at(relay, 0) for _ in range(2)]
    await meet(alice, old)
    new = await clients.join_at(relay, 1, like=old)
    await meet(alice, new)
    # And back: the newest one gets them, wherever it is.
    newest = await clients.join_at(relay, 0, like=old)
    await meet(alice, newest)
    await meet(newest, alice)


async def test_a_worker_dies(relay: Derper, clients: Clients) -> None:
    alice, bob = [await clients.join_at(relay, worker) for worker in (0, 1)]
    await meet(alice, bob)
    pids = children(relay)
    os.kill(pids[1], signal.SIGKILL)
    await ended(bob)
    # Nobody is refused meanwhile, and all are served in the end.
    comers = [await clients.join(relay) for _ in range(16)]
    relay.wait_for("a worker ended, and is started anew.*worker=1 reason=.signal SIGKILL")
    assert {worker for _, worker in comers} == {0, 1}
    bob = await clients.join_at(relay, 1, like=bob)
    await meet(alice, bob)
    # The page shows for some seconds what it has once asked for.
    new = "another process is worker 1"
    await until_async(new, lambda: children(relay).get(1) not in {None, pids[1]})
    assert children(relay)[0] == pids[0]
    assert varz(relay)["derper_worker_restarts"] == "1"
    assert page(relay, "/debug/check") == CONSISTENT


async def test_a_worker_hangs(relay: Derper, clients: Clients) -> None:
    """It is replaced, sooner than a client of the other worker would lose its patience."""
    alice, bob = [await clients.join_at(relay, worker) for worker in (0, 1)]
    await meet(alice, bob)
    pids = children(relay)
    os.kill(pids[1], signal.SIGSTOP)
    await alice.send_packet(bob.key, b"into the void")
    bob_left = trio.Event()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def others_are_served() -> None:
            while not bob_left.is_set():
                await alice.ping()

        await ended(bob)
        bob_left.set()
    relay.wait_for("a worker ended, and is started anew.*worker=1 reason=.it hung")
    bob = await clients.join_at(relay, 1, like=bob)
    await meet(alice, bob)
    await meet(bob, alice)
    assert children(relay)[0] == pids[0]
    assert varz(relay)["derper_worker_restarts"] == "1"
    assert page(relay, "/debug/check") == CONSISTENT


async def test_a_stop_tells_the_clients_of_both(relay: Derper, clients: Clients) -> None:
    peers = [await clients.join_at(relay, worker) for worker in (0, 1)]
    port = relay.port("HTTP")
    relay.signal(signal.SIGTERM)
    for peer in peers:
        kind, _ = await peer.receive()
        assert kind == RESTARTING
    assert relay.wait() == 0
    assert not [line for line in relay.log if "level=error" in line or "link lost" in line]
    socket.create_server(("127.0.0.1", port)).close()


async def test_signals_to_the_whole_group_are_the_supervisors(tmp_path: Path) -> None:
    """As a terminal and systemd send them."""
    with derper(tmp_path, "-workers", "2", tls=False) as relay:
        relay.wait_for("workers share the work")
        for pid in children(relay).values():
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
        assert set(children(relay)) == {0, 1}
        assert varz(relay)["derper_worker_restarts"] == "0"
        assert relay.stop() == 0


async def test_the_workers_end_with_their_supervisor(relay: Derper, clients: Clients) -> None:
    peer = await clients.join_at(relay, 1)
    port = relay.port("HTTP")
    relay.signal(signal.SIGKILL)
    kind, _ = await peer.receive()
    assert kind == RESTARTING
    for worker in (0, 1):
        relay.wait_for(f"msg=stopped worker={worker}")
    relay.wait()
    socket.create_server(("127.0.0.1", port)).close()


async def test_a_rate_limit_is_for_all_workers(tmp_path: Path, clients: Clients) -> None:
    file = tmp_path / "rate.json"
    file.write_text('{"PerClientRateLimitBytesPerSec": 125000, "PerClientRateBurstBytes": 100000}')
    with derper(tmp_path, "-workers", "2", "-rate-config", str(file), tls=False) as relay:
        relay.wait_for("workers share the work")
        for worker in (0, 1):
            peer = await clients.join_at(relay, worker)
            assert peer.server_info["TokenBucketBytesPerSecond"] == 125000
        file.write_text("{}")
        relay.signal(signal.SIGHUP)
        relay.wait_for("rate limit applied")
        await until_metric(relay, "derp_rate_limit_per_client_bytes_per_second", "0")
        for worker in (0, 1):
            peer = await clients.join_at(relay, worker)
            assert "TokenBucketBytesPerSecond" not in peer.server_info
        # A worker that is started later has the limit of now, not that of the start.
        os.kill(children(relay)[1], signal.SIGKILL)
        relay.wait_for("started anew")
        peer = await clients.join_at(relay, 1)
        assert "TokenBucketBytesPerSecond" not in peer.server_info


async def test_stun_is_answered_by_both(relay: Derper) -> None:
    port = relay.port("STUN")
    for _ in range(40):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.sendto(build_binding_request(bytes(range(12))), ("127.0.0.1", port))
            assert sock.recv(100)[8:20] == bytes(range(12))
    assert varz(relay)['stun_requests{disposition="success"}'] == "40"


def served(relay: Derper) -> set[bytes | None]:
    """The certificates that those get who connect now: enough for each worker."""
    found = set()
    for _ in range(24):
        with (
            socket.create_connection(("127.0.0.1", relay.port("HTTPS")), PATIENCE) as tcp,
            insecure().wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            found.add(tls.getpeercert(binary_form=True))
    return found


def test_a_new_certificate_is_served_by_both(tmp_path: Path) -> None:
    """And by one that is started anew, and a damaged one by none; each is told of once."""
    authority = trustme.CA()
    certificate, key = tmp_path / "own.crt", tmp_path / "own.key"

    def issue() -> bytes:
        leaf = authority.issue_cert("localhost")
        certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        key.chmod(0o600)
        return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())

    first = issue()
    own = ("-tls-cert", str(certificate), "-tls-key", str(key), "-hostname", "localhost")
    with derper(tmp_path, "-workers", "2", *own) as relay:
        relay.wait_for("workers share the work")
        assert served(relay) == {first}
        second = issue()
        relay.signal(signal.SIGHUP)
        relay.wait_for("new certificate")
        until("the second certificate", lambda: served(relay) == {second})
        certificate.write_text("no certificate")
        relay.signal(signal.SIGHUP)
        relay.wait_for("the old certificate stays in force")
        assert served(relay) == {second}
        third = issue()
        os.kill(children(relay)[1], signal.SIGKILL)
        relay.wait_for("started anew")
        relay.signal(signal.SIGHUP)
        until("the third certificate", lambda: served(relay) == {third})
        assert relay.stop() == 0
        for line in ("new certificate", "the old certificate stays in force"):
            assert sum(f'msg="{line}"' in each for each in relay.log) in {1, 2}


def test_a_self_signed_certificate_is_the_same_at_both(tmp_path: Path) -> None:
    with derper(tmp_path, "-workers", "2") as relay:
        relay.wait_for("workers share the work")
        assert len(served(relay)) == 1
        assert relay.stop() == 0
        assert sum("Put this node into your DERP map" in line for line in relay.log) == 1


async def test_who_may_come_in_is_asked_of_one_gate(tmp_path: Path, clients: Clients) -> None:
    member, friend, stranger = (Peer(None) for _ in range(3))  # type: ignore[arg-type]
    nodes = tmp_path / "nodes"
    nodes.write_text("".join(f"{node_public_text(peer.key)}\n" for peer in (member, friend)))
    flags = ("-workers", "2", "-verify-client-file", str(nodes))
    with derper(tmp_path, *flags, tls=False) as relay:
        relay.wait_for("workers share the work")
        at = [await clients.join_at(relay, worker, like=member) for worker in (0, 1)]
        friends = [await clients.join_at(relay, worker, like=friend) for worker in (0, 1)]
        for _ in range(8):
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await clients.join(relay, like=stranger)
        metrics = varz(relay)
        assert metrics['derper_admission_verdicts{verdict="refused"}'] == "8"
        assert metrics['derp_connection_ends{reason="not_admitted"}'] == "8"
        text = node_public_text(stranger.key)
        assert re.search(f"Refused {text}.*8 times", page(relay, "/debug/"))
        # Who is taken off the list has to leave, wherever connected.
        nodes.write_text(f"{node_public_text(friend.key)}\n")
        relay.signal(signal.SIGHUP)
        for peer in at:
            await ended(peer)
        await friends[0].ping()
        await friends[1].ping()


def test_another_relay_is_refused_the_port(relay: Derper, tmp_path: Path) -> None:
    """Though the workers share it."""
    port = relay.port("HTTP")
    for flags in ((), ("-workers", "2")):
        with derper(tmp_path, "-a", f"127.0.0.1:{port}", *flags, tls=False) as another:
            assert another.wait() == 1
            another.wait_for(f"can't listen on TCP 127.0.0.1:{port}: the port is in use by another")


@pytest.mark.parametrize("descriptor", [[], ["x"], ["0"], ["-1"], ["99"], ["1000000000000"]])
def test_nobody_else_starts_workers(descriptor: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "derp", "worker", *descriptor, "-dev"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert done.stderr == "derper: worker: only derper itself starts workers; want -workers N\n"


def test_auto_is_one_for_each_core(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        with derper(tmp_path, "-workers", "auto", tls=False) as relay:
            relay.wait_for("what=HTTP")
            assert "derper_workers" not in varz(relay)
            assert relay.stop() == 0
    finally:
        os.sched_setaffinity(0, cores)
    with derper(tmp_path, "-workers", "auto", tls=False) as relay:
        relay.wait_for("what=HTTP")
        assert varz(relay).get("derper_workers", "1") == str(len(cores))


def test_a_worker_that_does_not_start_is_the_end(tmp_path: Path) -> None:
    """With so few descriptors, the supervisor starts, and can't start a worker."""
    with derper(tmp_path, "-workers", "4", tls=False, descriptors=28) as relay:
        assert relay.wait() == 1
        assert not [line for line in relay.log if "Traceback" in line]
        relay.wait_for("a worker did not start.*too many open files")
        assert relay.log[-1] == "derper: not all workers have started; the lines above say why"
