"""What clients see of a relay that stops, and of one whose limits change."""

import json
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rawderp import (
    RECV_PACKET,
    RESTARTING,
    SEND_PACKET,
    SERVER,
    SERVER_INFO,
    UPGRADE,
    EndedError,
    Key,
    Wire,
    client_info,
    frame,
    upgrade_request,
)
from relay import Relay, running, write_key_file

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
            assert bob.take_frame(30)[0] == RECV_PACKET
        assert time.monotonic() - start < count * LARGEST / RATE / 2, "still limited"
    if not is_go:
        wire, info = login(relay, "carol")
        wire.close()
        assert info == {"version": 2}
