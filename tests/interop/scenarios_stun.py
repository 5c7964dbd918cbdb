"""Exchanges of datagrams: which of them the STUN responder answers."""

import socket
import struct
import zlib

from tests.interop.rawderp import PATIENCE
from tests.interop.stage import Difference, Stage, scenario

COOKIE = bytes.fromhex("2112a442")
SOFTWARE, FINGERPRINT, USERNAME, UNKNOWN = 0x8022, 0x8028, 0x0006, 0x7FFF


def attribute(kind: int, value: bytes, *, padding: bytes = b"\x00") -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + padding * (-len(value) % 4)


TAILNODE = attribute(SOFTWARE, b"tailnode")


def request(
    *attributes: bytes, fingerprint: bool = True, kind: int = 1, cookie: bytes = COOKIE
) -> bytes:
    """A binding request whose transaction ID is filled in when it is sent."""
    body = b"".join(attributes)
    length = len(body) + (8 if fingerprint else 0)
    message = struct.pack(">HH", kind, length) + cookie + bytes(12) + body
    return message + (attribute(FINGERPRINT, bytes(4)) if fingerprint else b"")


def with_transaction(message: bytes, number: int, *, sign: bool = True) -> bytes:
    """With an ID of its own, and a fingerprint that fits, if it has one at its end."""
    message = message[:8] + number.to_bytes(12, "big") + message[20:]
    if sign and message[-8:-4] == struct.pack(">HH", FINGERPRINT, 4):
        message = message[:-4] + struct.pack(">I", zlib.crc32(message[:-8]) ^ 0x5354554E)
    return message


USUAL = request(TAILNODE)

DATAGRAMS = {
    "as Tailscale asks": USUAL,
    "nothing": b"",
    "one byte": b"\x00",
    "19 bytes": USUAL[:19],
    "only the header": request(fingerprint=False),
    "no software": request(),
    "no fingerprint": request(TAILNODE, fingerprint=False),
    "other software": request(attribute(SOFTWARE, b"tailnodf")),
    "longer software": request(attribute(SOFTWARE, b"tailnode2")),
    "software twice, once right": request(attribute(SOFTWARE, b"other"), TAILNODE),
    "software twice, right first": request(TAILNODE, attribute(SOFTWARE, b"other")),
    "another attribute first": request(attribute(USERNAME, b"user"), TAILNODE),
    "another attribute between": request(TAILNODE, attribute(UNKNOWN, b"")),
    "an attribute to be padded": request(attribute(UNKNOWN, b"12345"), TAILNODE),
    "padding that is not zero": request(attribute(UNKNOWN, b"1", padding=b"x"), TAILNODE),
    "software behind the fingerprint": request(attribute(FINGERPRINT, bytes(4)), TAILNODE),
    "an attribute cut off": request(TAILNODE, struct.pack(">HH", UNKNOWN, 200)),
    "half an attribute header": request(TAILNODE, b"\x7f\xff"),
    "a fingerprint of two bytes": request(
        TAILNODE, attribute(FINGERPRINT, b"ab"), fingerprint=False
    ),
    "another cookie": request(TAILNODE, cookie=bytes(4)),
    "an indication": request(TAILNODE, kind=0x0011),
    "a success response": request(TAILNODE, kind=0x0101),
    "another method": request(TAILNODE, kind=0x0003),
    "TURN channel data": b"\x40\x00\x00\x04abcd",
    "a top bit": b"\x80" + USUAL[1:],
    "a byte too many": USUAL + b"\x00",
    "four bytes too many": USUAL + bytes(4),
    "a length too small": USUAL[:2] + struct.pack(">H", 12) + USUAL[4:],
    "a length too large": USUAL[:2] + struct.pack(">H", 200) + USUAL[4:],
    "a length of zero": USUAL[:2] + bytes(2) + USUAL[4:],
    "sixteen attributes": request(*[attribute(UNKNOWN, b"")] * 14, TAILNODE),
    "seventeen attributes": request(*[attribute(UNKNOWN, b"")] * 15, TAILNODE),
    "a large one": request(attribute(UNKNOWN, bytes(8000)), TAILNODE),
    "disco": "TS💬".encode() + bytes(100),
    "DNS": bytes.fromhex("123401000001000000000000076578616d706c6503636f6d0000010001"),
}


ANSWERED = "0101000c2112a442(its transaction)002000080001(our address)"
LARGE = f"a large one: {ANSWERED}"
MANY = f"seventeen attributes: {ANSWERED}"


@scenario(
    "STUN: which requests are answered",
    {
        LARGE: Difference("a large one: not answered", "no client asks in more than 40 bytes"),
        MANY: Difference("seventeen attributes: not answered", "no client sends more than two"),
    },
)
def datagrams(stage: Stage) -> None:
    """Behind each datagram goes a proper request, whose answer says that the former has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(PATIENCE)
        udp.connect(stage.place.stun)
        for number, (name, message) in enumerate(DATAGRAMS.items()):
            udp.send(with_transaction(message, 2 * number))
            udp.send(with_transaction(USUAL, 2 * number + 1))
            first = udp.recv(2048)
            if first[8:20] == (2 * number).to_bytes(12, "big"):
                stage.note(f"{name}: {answer(first, udp)}")
                first = udp.recv(2048)
            else:
                stage.note(f"{name}: not answered")
            assert first[8:20] == (2 * number + 1).to_bytes(12, "big")


@scenario("STUN: a wrong fingerprint")
def fingerprints(stage: Stage) -> None:
    right = with_transaction(USUAL, 7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(PATIENCE)
        udp.connect(stage.place.stun)
        for place in (8, 19, 25, 36, 39):
            wrong = bytearray(right)
            wrong[place] ^= 1
            udp.send(wrong)
        udp.send(right)
        stage.note(answer(udp.recv(2048), udp))


def answer(response: bytes, udp: socket.socket) -> str:
    """A response in words, the address that it tells compared with ours."""
    host, port = udp.getsockname()
    mapped = struct.pack(">H", port ^ 0x2112)
    mapped += bytes(a ^ b for a, b in zip(socket.inet_aton(host), COOKIE, strict=True))
    shown = response.hex().replace(mapped.hex(), "(our address)")
    return shown.replace(response[8:20].hex(), "(its transaction)")
