"""What Go's client once sent, sent again: the relay answers as the Go derper did then."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.interop.rawderp import Wire
from tests.interop.relay import Relay, running, write_key_file
from tests.interop.vectors import KEYS, Meaning, decode, load


def recorded(name: str) -> tuple[bytes, list[Meaning]]:
    """What a client sent from its first byte on, and the frames that it got for it."""
    transcripts: dict[str, Any] = {v["name"]: v for v in load("transcripts.json")["vectors"]}
    sent = bytes.fromhex(transcripts[f"{name} sent"]["hex"])
    return sent, [without_nonce(m) for m in transcripts[f"{name} received"]["meaning"]["frames"]]


def without_nonce(meaning: Meaning) -> Meaning:
    return {name: value for name, value in meaning.items() if name != "nonce"}


def take(wire: Wire, name: str, count: int) -> list[Meaning]:
    came = []
    for _ in range(count):
        kind, payload = wire.take_frame()
        data = bytes([kind]) + len(payload).to_bytes(4, "big") + payload
        came.append(without_nonce(decode(data, KEYS[name])))
    return came


@pytest.fixture
def address(under_test: list[str], tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The relay under test, with the key that the recording was made with."""
    write_key_file(tmp_path / "derper.key", KEYS["relay"].private)
    with running(Relay("replay", under_test, tmp_path, tls=False)) as relay:
        yield relay.host, relay.port


def test_replay(address: tuple[str, int]) -> None:
    alice_sent, alice_got = recorded("alice")
    bob_sent, bob_got = recorded("bob")
    with closing(Wire.connect(address)) as bob:
        bob.send(bob_sent)
        assert bob.take_response().status == 101
        assert take(bob, "bob", 2) == bob_got[:2]
        with closing(Wire.connect(address)) as alice:
            alice.send(alice_sent)
            assert alice.take_response().status == 101
            # The pong and the peer-gone may change places.
            came = take(alice, "alice", len(alice_got))
            assert sorted(came, key=str) == sorted(alice_got, key=str)
        assert take(bob, "bob", 4) == bob_got[2:6]


def test_replay_of_a_mesh_peer_is_refused(address: tuple[str, int]) -> None:
    """Its mesh key belongs to another relay than this one."""
    sent, got = recorded("mesh")
    with closing(Wire.connect(address)) as mesh:
        mesh.send(sent)
        assert mesh.take_response().status == 101
        assert take(mesh, "mesh", 2) == got[:2]
        assert mesh.rest() == b""
