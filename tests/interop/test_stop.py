"""What clients see of a relay that stops, and of one whose limits change."""

import json
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.interop.rawderp import SERVER, EndedError, Key, Wire, client_info
from tests.interop.relay import Relay, TestCA, die_with_parent, environment, running, write_key_file
from tests.support.derp import (
    HEALTH,
    RECV_PACKET,
    RESTARTING,
    SEND_PACKET,
    SERVER_INFO,
    UPGRADE,
    frame,
    upgrade_request,
)

LARGEST = 65536
BURST = LARGEST + 32
RATE = 100_000


def login(relay: Relay, name: str) -> tuple[Wire, dict[str, int]]:
    """A client, and what the relay told it in the server info."""
    key = Key.named(name)
    wire = Wire.connect((relay.host, relay.port))
    wire.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1"))
    wire.take_frame()
    wire.send(client_info(key, b'{"version":2}', SERVER.public))
    kind, payload = wire.take_frame()
    assert kind == SERVER_INFO
    info: dict[str, int] = json.loads(key.open(SERVER.public, payload))
    return wire, info


@pytest.fixture
def relay(under_test: list[str], tmp_path: Path) -> Iterator[Relay]:
    """A relay under test with a rate limit, for this test alone."""
    write_key_file(tmp_path / "derper.key", SERVER.private)
    write_limit(tmp_path, RATE)
    flags = ["-rate-config", str(tmp_path / "rate.json")]
    with running(Relay("relay", under_test, tmp_path, tls=False, flags=flags)) as started:
        yield started


def write_limit(folder: Path, rate: int) -> None:
    limit = {"PerClientRateLimitBytesPerSec": rate, "PerClientRateBurstBytes": 1}
    (folder / "rate.json").write_text(json.dumps(limit))


def test_stop_is_announced(relay: Relay, is_go: bool) -> None:
    clients = [login(relay, f"client {number}")[0] for number in range(5)]
    assert relay.process
    relay.process.send_signal(signal.SIGTERM)
    announced = set()
    for wire in clients:
        with closing(wire):
            if not is_go:  # which says nothing
                kind, payload = wire.take_frame()
                assert kind == RESTARTING
                reconnect_in, try_for = struct.unpack(">II", payload)
                announced.add(reconnect_in)
                assert reconnect_in <= 60_000
                assert 0 < try_for <= 60_000
                kind, payload = wire.take_frame()
                assert kind == HEALTH
                assert payload.startswith(b"the relay goes down")
            with pytest.raises(EndedError):
                wire.take(1)
    assert relay.process.wait(15) == 0
    relay.process = None
    if not is_go:
        assert len(announced) > 1, "all of them would come back at the same moment"


def test_the_limit_is_told_and_kept(relay: Relay, is_go: bool) -> None:
    """Six packets of the largest size: the first is free, the others wait for their bytes."""
    with closing(login(relay, "bob")[0]) as bob:
        alice, info = login(relay, "alice")
        with closing(alice):
            if is_go:  # which tells nobody
                assert info == {"version": 2}
            else:
                assert info == {
                    "version": 2,
                    "TokenBucketBytesPerSecond": RATE,
                    "TokenBucketBytesBurst": BURST,
                }
            start = time.monotonic()
            count = 6
            packet = frame(SEND_PACKET, Key.named("bob").public + bytes(LARGEST))
            for _ in range(count):
                alice.send(packet)
            for _ in range(count):
                kind, payload = bob.take_frame(30)
                assert (kind, len(payload)) == (RECV_PACKET, 32 + LARGEST)
            took = time.monotonic() - start
    # Never faster than the limit; how much slower is the machine's business.
    assert took > ((count - 1) * (LARGEST + 32) / RATE) * 0.9


def test_the_limit_is_reloaded(relay: Relay, tmp_path: Path, is_go: bool) -> None:
    """With SIGHUP, for those who are here and those who come."""
    assert relay.process
    with closing(login(relay, "bob")[0]) as bob, closing(login(relay, "alice")[0]) as alice:
        write_limit(tmp_path, 0)
        relay.process.send_signal(signal.SIGHUP)
        packet = frame(SEND_PACKET, Key.named("bob").public + bytes(LARGEST))
        start = time.monotonic()
        count = 100
        for _ in range(count):
            alice.send(packet)
            while (kind := bob.take_frame(30)[0]) == SERVER_INFO:
                assert not is_go
            assert kind == RECV_PACKET
        assert time.monotonic() - start < count * LARGEST / RATE / 2, "still limited"
    if not is_go:
        wire, info = login(relay, "carol")
        wire.close()
        assert info == {"version": 2}


class Limited:
    """A Go client that sends to another all the time."""

    def __init__(self, derpcheck: Path, relay: Relay, ca: TestCA) -> None:
        self._process = subprocess.Popen(
            [derpcheck, "limited", "-tls", relay.url],
            env=environment(SSL_CERT_FILE=str(ca.pem)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report

    def report(self) -> dict[str, Any]:
        """What the sender was told last, and what arrived since the report before."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def until_told(self, rate: int) -> float:
        """Wait until the sender was told so; how many bytes a second arrive then."""
        deadline = time.monotonic() + 30
        while (report := self.report())["told"] != rate:
            assert time.monotonic() < deadline, f"it is not told {rate}: {report}"
            time.sleep(0.01)
        if rate:
            assert report["burst"] >= rate / 4
        return self.rate()

    def rate(self) -> float:
        """How many bytes a second arrive, once what was sent before has, and a burst."""
        time.sleep(1.0)
        self.report()
        time.sleep(2.0)
        report = self.report()
        rate: float = report["bytes"] / report["seconds"]
        return rate

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_a_go_client_sends_as_fast_as_the_limit_allows_by_now(
    under_test: list[str],
    is_go: bool,
    test_ca: TestCA,
    binaries: dict[str, Path],
    tmp_path: Path,
) -> None:
    if is_go:
        pytest.skip("the Go derper tells nobody of its limit")
    slow, fast = 100_000, 1_000_000
    test_ca.issue(tmp_path, "localhost")
    write_limit(tmp_path, slow)
    flags = ["-rate-config", str(tmp_path / "rate.json")]
    with (
        running(Relay("relay", under_test, tmp_path, flags=flags)) as relay,
        closing(Limited(binaries["derpcheck"], relay, test_ca)) as client,
    ):
        assert relay.process

        def change(rate: int) -> float:
            write_limit(tmp_path, rate)
            relay.process.send_signal(signal.SIGHUP)
            return client.until_told(rate)

        assert client.rate() < 1.2 * slow
        # More than the limit before would let pass, and no more than this one does.
        assert 1.2 * slow < change(fast) < 1.2 * fast
        assert change(0) > 1.2 * fast
        assert change(slow) < 1.2 * slow
