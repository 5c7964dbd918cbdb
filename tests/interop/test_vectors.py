"""The recorded bytes mean what they say, to a decoder that shares nothing with the relay."""

import hashlib
import ipaddress
import json
import re
import struct
import zlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from nacl.bindings import crypto_scalarmult_base

from tests.interop.vectors import FOLDER, KEYS, decode, encode, load, split

FILES = sorted(path.name for path in FOLDER.glob("*.json"))
COOKIE = 0x2112A442


def entries(name: str) -> list[Any]:
    """A test parameter for each vector of a file."""
    return [pytest.param(vector, id=vector["name"]) for vector in load(name)["vectors"]]


def entry(name: str, title: str) -> tuple[bytes, dict[str, Any]]:
    found = next(v for v in load(name)["vectors"] if v["name"] == title)
    return bytes.fromhex(found["hex"]), found["meaning"]


@pytest.mark.parametrize("name", FILES)
def test_keys_belong_together(name: str) -> None:
    content = load(name)
    assert content["source"].startswith("tailscale.com")
    for title, pair in content["keys"].items():
        private = bytes.fromhex(pair["private"])
        assert crypto_scalarmult_base(private).hex() == pair["public"]
        assert (KEYS[title].private, KEYS[title].public.hex()) == (private, pair["public"])


@pytest.mark.parametrize("vector", entries("frames.json"))
def test_frame(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    client = KEYS[vector["name"].split()[0]]
    assert decode(data, client) == vector["meaning"]
    assert encode(vector["meaning"], client) == data


def test_every_frame_is_there() -> None:
    seen = {vector["meaning"]["frame"] for vector in load("frames.json")["vectors"]}
    assert seen == {
        *("ServerKey", "ClientInfo", "ServerInfo", "SendPacket", "RecvPacket", "KeepAlive"),
        *("NotePreferred", "PeerGone", "PeerPresent", "ForwardPacket", "WatchConns"),
        *("ClosePeer", "Ping", "Pong"),
    }


@pytest.mark.parametrize("vector", entries("transcripts.json"))
def test_transcript(vector: dict[str, Any]) -> None:
    client = KEYS[vector["name"].split()[0]]
    head = vector["meaning"]["http"].encode()
    data = bytes.fromhex(vector["hex"])
    assert data.startswith(head)
    frames = [decode(frame, client) for frame in split(data[len(head) :])]
    assert frames == vector["meaning"]["frames"]


def stun_attributes(data: bytes) -> dict[int, bytes]:
    attributes, rest = {}, data[20:]
    while rest:
        kind, length = struct.unpack(">HH", rest[:4])
        attributes[kind] = rest[4 : 4 + length]
        rest = rest[4 + (length + 3) // 4 * 4 :]
    return attributes


def test_stun_request() -> None:
    data, meaning = entry("stun.json", "request")
    assert struct.unpack(">HHI", data[:8]) == (0x0001, len(data) - 20, COOKIE)
    assert data[8:20].hex() == meaning["transaction"]
    attributes = stun_attributes(data)
    assert list(attributes) == [0x8022, 0x8028]
    assert attributes[0x8022] == b"tailnode"
    fingerprint = zlib.crc32(data[:-8]) ^ 0x5354554E
    assert attributes[0x8028] == struct.pack(">I", fingerprint)


@pytest.mark.parametrize("title", ["response to 127.0.0.1", "response to [::1]"])
def test_stun_response(title: str) -> None:
    data, meaning = entry("stun.json", title)
    address = ipaddress.ip_address(meaning["address"])
    assert struct.unpack(">HHI", data[:8]) == (0x0101, len(data) - 20, COOKIE)
    assert data[8:20].hex() == meaning["transaction"]
    (kind, value), *others = stun_attributes(data).items()
    assert (kind, others) == (0x0020, [])
    family, port = struct.unpack(">xBH", value[:4])
    mask = data[4 : 4 + len(address.packed)]
    assert family == (1 if address.version == 4 else 2)
    assert port ^ (COOKIE >> 16) == meaning["port"]
    assert bytes(a ^ b for a, b in zip(value[4:], mask, strict=True)) == address.packed


@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_metacert() -> None:
    data, meaning = entry("files.json", "metacert")
    certificate = x509.load_der_x509_certificate(data)
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == f"CN={meaning['common name']}"
    assert meaning["common name"] == f"derpkey{KEYS['relay'].public.hex()}"
    assert certificate.serial_number == meaning["serial number"]
    public = certificate.public_key()
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(certificate.signature, certificate.tbs_certificate_bytes)


def test_self_signed_certificate() -> None:
    data, meaning = entry("files.json", "self-signed certificate")
    certificate = x509.load_der_x509_certificate(data)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    address = ipaddress.ip_address(meaning["address"])
    assert names.get_values_for_type(x509.IPAddress) == [address]
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    pin = hashlib.sha256(data).hexdigest()
    assert meaning["derp map node"]["CertName"] == f"sha256-raw:{pin}"


def test_key_file() -> None:
    data, meaning = entry("files.json", "key file")
    text = json.loads(data)["PrivateKey"]
    assert re.fullmatch(r"privkey:[0-9a-f]{64}", text)
    assert text == f"privkey:{meaning['private']}"
