"""Exchanges over websockets: the handshake, how messages carry frames, and broken messages."""

import base64
import contextlib
import hashlib
import struct

from tests.interop.rawderp import SERVER, EndedError, Wire, client_info
from tests.interop.stage import Difference, Peer, Stage, scenario
from tests.support.derp import PING, SEND_PACKET, frame, upgrade_request

CONTINUATION, TEXT, BINARY, CLOSE, WS_PING, WS_PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80
NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x12\x34\x56\x78"

ASK = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {NONCE}",
    "Sec-WebSocket-Protocol: derp",
)


def message(
    payload: bytes, opcode: int = BINARY, *, flags: int = FIN, mask: bytes | None = MASK
) -> bytes:
    """One websocket frame, as a client sends it."""
    head = bytes([flags | opcode])
    masked = 0x80 if mask is not None else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += bytes([masked | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", len(payload))
    if mask is None:
        return head + payload
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + mixed.to_bytes(len(payload), "big")


class WebSocketWire(Wire):
    """Puts what is sent into one binary message each, and joins what comes in such."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.sock)
        self.raw = wire.buffer
        self.largest = 0
        """The longest message that came, in bytes."""
        self.control: list[str] = []
        """What came besides binary messages."""

    def send(self, data: bytes) -> None:
        super().send(message(data))

    def send_raw(self, data: bytes) -> None:
        super().send(data)

    def more(self, deadline: float) -> None:
        while not (taken := self.unpack()):
            kept, self.buffer = self.buffer, b""
            try:
                super().more(deadline)
            finally:
                self.raw += self.buffer
                self.buffer = kept
        opcode, payload = taken
        if opcode in {BINARY, CONTINUATION}:
            self.largest = max(self.largest, len(payload))
            self.buffer += payload
        elif opcode == CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if payload else None
            self.control.append(f"close {code}")
            # Answered, or else the Go derper waits five seconds for it.
            with contextlib.suppress(EndedError):
                self.send_raw(message(payload, CLOSE))
        else:
            self.control.append(f"opcode {opcode} {payload!r}")

    def unpack(self) -> tuple[int, bytes] | None:
        """One websocket frame off `raw`, if it is whole. A server's frames have no mask."""
        if len(self.raw) < 2:
            return None
        length, start = self.raw[1] & 127, 2
        assert not self.raw[1] & 0x80
        if length == 126:
            length, start = int.from_bytes(self.raw[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(self.raw[2:10], "big"), 10
        if len(self.raw) < start + length:
            return None
        opcode, payload = self.raw[0] & 15, self.raw[start : start + length]
        self.raw = self.raw[start + length :]
        return opcode, payload


def opened(stage: Stage, name: str, *, tls: bool = False) -> Peer:
    """A websocket, before the login."""
    peer = stage.connect(name, tls=tls)
    peer.send(upgrade_request(*ASK))
    response = peer.wire.take_response()
    assert response.status == 101
    peer.wire = WebSocketWire(peer.wire)
    return peer


def login(stage: Stage, name: str, *, tls: bool = False) -> Peer:
    peer = opened(stage, name, tls=tls)
    peer.greet()
    return peer


def socket_of(peer: Peer) -> WebSocketWire:
    assert isinstance(peer.wire, WebSocketWire)
    return peer.wire


@scenario("websocket: the handshake and the login")
def handshake(stage: Stage) -> None:
    for tls in (False, True):
        alice = stage.connect("alice", tls=tls)
        alice.send(upgrade_request(*ASK))
        alice.response()
        accept = hashlib.sha1(NONCE.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        assert base64.b64encode(accept.digest()).decode() in stage.transcript[-1]
        alice.wire = WebSocketWire(alice.wire)
        alice.take()
        alice.send(client_info(alice.key, b'{"version":2}', SERVER.public))
        alice.take()
        alice.settle()


def asked(*changes: tuple[str, str]) -> tuple[str, ...]:
    """The usual headers, some of them replaced; an empty value leaves one out."""
    headers = dict(line.split(": ", 1) for line in ASK) | dict(changes)
    return tuple(f"{name}: {value}" for name, value in headers.items() if value)


HANDSHAKES = {
    "derp among others": asked(("Sec-WebSocket-Protocol", "derp, chat")),
    "derp behind others": asked(("Sec-WebSocket-Protocol", "chat, derp")),
    "Upgrade in capitals": asked(("Upgrade", "WEBSOCKET")),
    "Connection: keep-alive, Upgrade": asked(("Connection", "keep-alive, Upgrade")),
    "an Origin": asked(("Origin", "https://example.com")),
    "extensions on offer": asked(("Sec-WebSocket-Extensions", "permessage-deflate")),
    "fast start as well": asked(("Derp-Fast-Start", "1")),
    "no key": asked(("Sec-WebSocket-Key", "")),
    "a short key": asked(("Sec-WebSocket-Key", "c2hvcnQ=")),
    "a key that is not base64": asked(("Sec-WebSocket-Key", "?" * 24)),
    "no version": asked(("Sec-WebSocket-Version", "")),
    "version 8": asked(("Sec-WebSocket-Version", "8")),
    "no Connection": asked(("Connection", "")),
    "Connection: close": asked(("Connection", "close")),
    "a protocol that has derp in its name": asked(("Sec-WebSocket-Protocol", "notderp")),
}


HANDSHAKE_DIFFERS = {
    "a protocol that has derp in its name": {
        "alice: HTTP 101 connection: Upgrade | sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        " | upgrade: websocket": Difference("alice: HTTP 400", "refused at once, not afterwards"),
        "alice: closed": Difference((), "refused at once, not afterwards"),
    },
}


def handshake_scenario(name: str, headers: tuple[str, ...]) -> None:
    @scenario(f"websocket handshake: {name}", HANDSHAKE_DIFFERS.get(name))
    def play(stage: Stage) -> None:
        alice = stage.connect("alice")
        alice.send(upgrade_request(*headers))
        alice.response()
        if "101" in stage.transcript[-1]:
            alice.wire = WebSocketWire(alice.wire)
            if "sec-websocket-protocol: derp" in stage.transcript[-1]:
                alice.greet()
                alice.settle()
            else:
                alice.end()


for _name, _headers in HANDSHAKES.items():
    handshake_scenario(_name, _headers)


@scenario("websocket handshake: another method")
def handshake_post(stage: Stage) -> None:
    alice = stage.connect("alice")
    request = upgrade_request(*asked(("Content-Length", "0")))
    alice.send(request.replace(b"GET", b"POST", 1))
    alice.response()


@scenario("websocket: packets of any size, from and to raw connections")
def packets(stage: Stage) -> None:
    web, raw = login(stage, "alice"), stage.login("bob")
    for size in (0, 1, 125, 126, 127, 1400, 4096, 16384, 32000):
        for sender, receiver in ((web, raw), (raw, web)):
            sender.packet(receiver, bytes(i % 251 for i in range(size)))
            receiver.take()
    web.settle()
    raw.settle()


TOO_BIG = "a packet may be 64 KiB, and a client may put it into one message"


@scenario(
    "websocket: a message of more than 32 KiB",
    {
        "alice: closed": Difference("alice: settled", TOO_BIG),
        "bob: settled": Difference(
            ("bob: packet from alice: 40000 bytes 8f272ca6d96caedf", "bob: settled"), TOO_BIG
        ),
    },
)
def large_message(stage: Stage) -> None:
    alice, bob = login(stage, "alice"), stage.login("bob")
    alice.packet(bob, bytes(i % 251 for i in range(40000)))
    alice.settle()
    bob.settle()


@scenario("websocket: frames and messages have different ends")
def message_ends(stage: Stage) -> None:
    alice = opened(stage, "alice")
    wire = socket_of(alice)
    alice.take()
    stream = client_info(alice.key, b'{"version":2}', SERVER.public)
    stream += frame(SEND_PACKET, alice.key.public + b"one") + frame(PING, b"12345678")
    stream += frame(SEND_PACKET, alice.key.public + b"two")
    for place in range(0, len(stream), 7):
        wire.send_raw(message(stream[place : place + 7]))
    alice.take()
    alice.take_any_order(3)
    # All at once, and in fragments of one message, with a ping between them.
    wire.send_raw(message(stream[-90:][-(5 + 32 + 3) :] * 3))
    alice.take(3)
    packet = frame(SEND_PACKET, alice.key.public + b"fragments")
    wire.send_raw(message(packet[:3], flags=0))
    wire.send_raw(message(b"", WS_PING))
    wire.send_raw(message(packet[3:20], CONTINUATION, flags=0))
    wire.send_raw(message(b"", CONTINUATION, flags=0))
    wire.send_raw(message(packet[20:], CONTINUATION))
    alice.take()
    wire.send_raw(message(b""))
    alice.settle()


@scenario("websocket: pings")
def pings(stage: Stage) -> None:
    alice = login(stage, "alice")
    for payload in (b"", b"hello", bytes(125)):
        socket_of(alice).send_raw(message(payload, WS_PING))
        alice.settle()
    socket_of(alice).send_raw(message(b"unasked", WS_PONG))
    alice.settle()
    for line in socket_of(alice).control:
        alice.note(line)


# Each ends the connection. With which code it is said, if it is, is each derper's own: the Go
# derper has 1000, 1002 and 1003 for these. A client's own close is answered with its code.
BROKEN = {
    "a text message": message(b"hello", TEXT),
    "a message without a mask": message(frame(PING, b"12345678"), mask=None),
    "a reserved bit": message(frame(PING, b"12345678"), flags=FIN | 0x40),
    "an unknown opcode": message(b"x", 3),
    "an unknown control opcode": message(b"x", 11),
    "a ping of 126 bytes": message(bytes(126), WS_PING),
    "a fragmented ping": message(b"x", WS_PING, flags=0),
    "a continuation of nothing": message(b"x", CONTINUATION),
    "a message within a message": message(b"x", flags=0) + message(b"y"),
    "a close with half a code": message(b"\x03", CLOSE),
    "a close with a code nobody may send": message(struct.pack(">H", 1005), CLOSE),
    "a length with the top bit set": bytes([FIN | BINARY, 0xFF]) + b"\xff" * 8 + MASK,
}


def broken_scenario(name: str, data: bytes) -> None:
    @scenario(f"broken websocket: {name}")
    def play(stage: Stage) -> None:
        alice, bob = login(stage, "alice"), stage.login("bob")
        alice.packet(bob, b"hello")
        bob.take()
        socket_of(alice).send_raw(data)
        alice.end()
        bob.take()
        bob.settle()


for _name, _data in BROKEN.items():
    broken_scenario(_name, _data)


@scenario("websocket: a close is answered")
def closes(stage: Stage) -> None:
    for payload in (struct.pack(">H", 1000), struct.pack(">H", 1001) + b"bye", b""):
        alice, bob = login(stage, "alice"), stage.login("bob")
        alice.packet(bob, b"hello")
        bob.take()
        socket_of(alice).send_raw(message(payload, CLOSE))
        alice.end()
        for line in socket_of(alice).control:
            alice.note(line)
        bob.take()
        bob.settle()


@scenario("websocket: a DERP violation ends it")
def violation(stage: Stage) -> None:
    alice, bob = login(stage, "alice"), stage.login("bob")
    alice.packet(bob, b"hello")
    bob.take()
    alice.frame(PING, b"short")
    alice.end()
    bob.take()
    bob.settle()


@scenario("websocket: hang up without a goodbye")
def hang_up(stage: Stage) -> None:
    alice, bob = login(stage, "alice"), stage.login("bob")
    alice.packet(bob, b"hello")
    bob.take()
    alice.close()
    bob.take()
    bob.settle()
