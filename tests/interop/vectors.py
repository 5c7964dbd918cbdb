"""The recorded vectors: what they look like, and what they mean.

Each file in vectors/ is JSON: `source` says which program sent the bytes, `keys` holds every
private and public key involved, and `vectors` is a list of {name, hex, meaning}. A frame's
meaning is an object with `frame`, its name, and its fields; keys, payloads and nonces are in hex,
and the JSON in a box stands as text, so that a frame can be made anew from its meaning, byte for
byte. This module does both, with nothing but PyNaCl.
"""

import ipaddress
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.golang import HERE
from tests.interop.rawderp import Key
from tests.support.derp import MAGIC, NONCE_LENGTH

FOLDER = HERE / "vectors"

NAMES = {
    0x01: "ServerKey",
    0x02: "ClientInfo",
    0x03: "ServerInfo",
    0x04: "SendPacket",
    0x05: "RecvPacket",
    0x06: "KeepAlive",
    0x07: "NotePreferred",
    0x08: "PeerGone",
    0x09: "PeerPresent",
    0x0A: "ForwardPacket",
    0x10: "WatchConns",
    0x11: "ClosePeer",
    0x12: "Ping",
    0x13: "Pong",
}
TYPES = {name: number for number, name in NAMES.items()}

KEYS = {name: Key.named(name) for name in ("relay", "alice", "bob", "mesh", "nobody")}

Meaning = dict[str, Any]


def decode(data: bytes, client: Key) -> Meaning:
    """What one whole frame means, sent or received by `client`."""
    kind, length = struct.unpack(">BI", data[:5])
    payload = data[5:]
    assert len(payload) == length
    name = NAMES[kind]
    return {"frame": name, **_fields(name, payload, client)}


def _fields(name: str, payload: bytes, client: Key) -> Meaning:  # noqa: PLR0911 — a table
    key, rest = payload[:32].hex(), payload[32:]
    match name:
        case "ServerKey":
            assert payload[:8] == MAGIC
            return {"key": payload[8:].hex()}
        case "ClientInfo":
            text = KEYS["relay"].open(bytes.fromhex(key), rest).decode()
            return {"key": key, "nonce": rest[:NONCE_LENGTH].hex(), "json": text}
        case "ServerInfo":
            text = client.open(KEYS["relay"].public, payload).decode()
            return {"nonce": payload[:NONCE_LENGTH].hex(), "json": text}
        case "SendPacket":
            return {"to": key, "payload": rest.hex()}
        case "RecvPacket":
            return {"from": key, "payload": rest.hex()}
        case "ForwardPacket":
            return {"from": key, "to": rest[:32].hex(), "payload": rest[32:].hex()}
        case "PeerGone":
            return {"key": key, "reason": rest[0]}
        case "PeerPresent":
            six = ipaddress.IPv6Address(rest[:16])
            port = int.from_bytes(rest[16:18], "big")
            address = str(six.ipv4_mapped or six)
            return {"key": key, "address": address, "port": port, "flags": rest[18]}
        case "ClosePeer":
            return {"key": key}
        case "NotePreferred":
            return {"preferred": bool(payload[0])}
        case "Ping" | "Pong":
            return {"payload": payload.hex()}
    assert not payload
    return {}


def encode(meaning: Meaning, client: Key) -> bytes:
    """The frame that means this."""
    payload = _payload(meaning, client)
    return struct.pack(">BI", TYPES[meaning["frame"]], len(payload)) + payload


def _payload(meaning: Meaning, client: Key) -> bytes:  # noqa: PLR0911 — a table
    field = {
        name: bytes.fromhex(meaning[name])
        for name in ("key", "nonce", "from", "to", "payload")
        if name in meaning
    }
    match meaning["frame"]:
        case "ServerKey":
            return MAGIC + field["key"]
        case "ClientInfo":
            relay = KEYS["relay"].public
            return field["key"] + client.seal(relay, meaning["json"].encode(), field["nonce"])
        case "ServerInfo":
            text = meaning["json"].encode()
            return KEYS["relay"].seal(client.public, text, field["nonce"])
        case "PeerGone":
            return field["key"] + bytes([meaning["reason"]])
        case "PeerPresent":
            address = ipaddress.ip_address(meaning["address"]).packed
            if len(address) == 4:
                address = bytes(10) + b"\xff\xff" + address
            return field["key"] + address + struct.pack(">HB", meaning["port"], meaning["flags"])
        case "NotePreferred":
            return bytes([meaning["preferred"]])
    return b"".join(field[name] for name in ("from", "to", "key", "payload") if name in field)


def split(stream: bytes) -> Iterator[bytes]:
    """The frames of a stream that holds nothing else."""
    while stream:
        end = 5 + int.from_bytes(stream[1:5], "big")
        assert len(stream) >= end
        yield stream[:end]
        stream = stream[end:]


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def save(name: str, source: str, vectors: list[Meaning]) -> Path:
    keys = {
        name: {"private": key.private.hex(), "public": key.public.hex()}
        for name, key in KEYS.items()
    }
    path = FOLDER / name
    content = {"source": source, "keys": keys, "vectors": vectors}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path
