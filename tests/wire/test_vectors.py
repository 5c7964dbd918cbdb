"""Our wire code against bytes that the Go derper and Go's client have sent."""

import json
from pathlib import Path
from typing import Any

import nacl.public
import pytest

from derp.wire import frames, login, trains
from derp.wire.frames import FrameType, PeerGoneReason
from tests.support.frames import recv_packet

RECORDED = json.loads(
    Path(__file__).parents[1].joinpath("interop/vectors/frames.json").read_text(encoding="ascii")
)
KEYS = RECORDED["keys"]
BY_FRAME: dict[str, list[dict[str, Any]]] = {}
for vector in RECORDED["vectors"]:
    BY_FRAME.setdefault(vector["meaning"]["frame"], []).append(vector)

RELAY = nacl.public.PrivateKey(bytes.fromhex(KEYS["relay"]["private"]))


def recorded(kind: str) -> list[Any]:
    return [pytest.param(v["hex"], v["meaning"], id=v["name"]) for v in BY_FRAME[kind]]


def test_every_frame_of_a_session_was_recorded() -> None:
    assert {
        "ClientInfo",
        "KeepAlive",
        "NotePreferred",
        "PeerGone",
        "Ping",
        "Pong",
        "RecvPacket",
        "SendPacket",
        "ServerInfo",
        "ServerKey",
    } <= BY_FRAME.keys()


@pytest.mark.parametrize(("data", "meaning"), recorded("ClientInfo"))
def test_gos_client_infos_open(data: str, meaning: dict[str, Any]) -> None:
    frame = bytes.fromhex(data)
    assert login.client_info_size(frame) == len(frame)
    key, info, _ = login.open_client_info(RELAY, frame[5:])
    said = json.loads(meaning["json"])
    assert key.hex() == meaning["key"]
    assert info.version == said["version"]
    assert info.can_ack_pings == said["CanAckPings"]
    assert info.is_prober == said.get("IsProber", False)
    assert info.app_name == said.get("AppName", "")
    mesh_key = info.mesh_key.hex() if info.mesh_key else None
    assert mesh_key == said.get("meshKey")


@pytest.mark.parametrize(("data", "meaning"), recorded("ServerInfo"))
def test_our_server_infos_are_gos(data: str, meaning: dict[str, Any]) -> None:
    nonce = bytes.fromhex(meaning["nonce"])
    built = [
        login.seal_server_info(
            nacl.public.Box(RELAY, nacl.public.PublicKey(bytes.fromhex(key["public"]))),
            nonce=nonce,
        ).hex()
        for key in KEYS.values()
    ]
    assert data in built


@pytest.mark.parametrize(("data", "_meaning"), recorded("ServerKey"))
def test_our_greeting_is_gos(data: str, _meaning: dict[str, Any]) -> None:
    assert frames.server_key(bytes(RELAY.public_key)).hex() == data


@pytest.mark.parametrize(("data", "_meaning"), recorded("KeepAlive"))
def test_our_keep_alive_is_gos(data: str, _meaning: dict[str, Any]) -> None:
    assert frames.KEEP_ALIVE.hex() == data


@pytest.mark.parametrize(("data", "_meaning"), recorded("Pong"))
def test_our_pongs_are_gos(data: str, _meaning: dict[str, Any]) -> None:
    assert frames.pong(bytes.fromhex(data)[5:]).hex() == data


@pytest.mark.parametrize(("data", "_meaning"), recorded("PeerGone"))
def test_our_peer_gones_are_gos(data: str, _meaning: dict[str, Any]) -> None:
    payload = bytes.fromhex(data)[5:]
    assert frames.peer_gone(payload[:32], PeerGoneReason(payload[32])).hex() == data


@pytest.mark.parametrize(("data", "_meaning"), recorded("SendPacket"))
def test_gos_packets_become_what_go_makes_of_them(data: str, _meaning: dict[str, Any]) -> None:
    buffer = bytearray.fromhex(data)
    packet = bytes(buffer[37:])
    source = bytes.fromhex(KEYS["alice"]["public"])
    _, stop, destination, count = trains.next_train(buffer, 0, len(buffer), source)
    assert (stop, count) == (len(buffer), 1)
    assert destination.hex() == data[10:74]
    assert buffer == recv_packet(source, packet)


@pytest.mark.parametrize(("data", "_meaning"), recorded("RecvPacket"))
def test_our_packets_are_gos(data: str, _meaning: dict[str, Any]) -> None:
    frame = bytes.fromhex(data)
    assert recv_packet(frame[5:37], frame[37:]) == frame


@pytest.mark.parametrize(("data", "_meaning"), [*recorded("Ping"), *recorded("NotePreferred")])
def test_gos_control_frames_are_whole_frames(data: str, _meaning: dict[str, Any]) -> None:
    buffer = bytearray.fromhex(data)
    kind = trains.Kind[FrameType(buffer[0]).name]
    assert kind in (trains.Kind.PING, trains.Kind.NOTE_PREFERRED)
    assert trains.next_train(buffer, 0, len(buffer), bytes(32)) == (kind, len(buffer), b"", 0)
