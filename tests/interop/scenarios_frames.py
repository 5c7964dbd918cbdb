"""Exchanges about single frames after login: sizes, unknown kinds, and what is not permitted."""

from tests.interop.rawderp import SERVER, Key, client_info
from tests.interop.stage import Stage, scenario
from tests.support.derp import (
    CLOSE_PEER,
    FORWARD_PACKET,
    HEALTH,
    KEEP_ALIVE,
    MAGIC,
    NOTE_PREFERRED,
    PEER_GONE,
    PEER_PRESENT,
    PING,
    PONG,
    RECV_PACKET,
    RESTARTING,
    SEND_PACKET,
    SERVER_INFO,
    SERVER_KEY,
    WATCH_CONNS,
    frame,
)


@scenario("ping: of any size")
def ping_sizes(stage: Stage) -> None:
    for size in (0, 1, 7, 8, 9, 16, 999, 1000, 1001, 5000):
        alice = stage.login("alice")
        alice.frame(PING, bytes(i % 251 for i in range(size)))
        if 8 <= size <= 1000:
            alice.take()
            alice.settle()
        else:
            alice.end()


@scenario("ping: one after another")
def ping_sequence(stage: Stage) -> None:
    alice = stage.login("alice")
    for number in range(20):
        alice.frame(PING, number.to_bytes(8, "big"))
        alice.take()
    alice.settle()


@scenario("note preferred: of any size")
def note_preferred_sizes(stage: Stage) -> None:
    for payload in (b"", b"\x00", b"\x01", b"\x02", b"\xff", b"\x01\x01", bytes(100)):
        alice = stage.login("alice")
        alice.frame(NOTE_PREFERRED, payload)
        if len(payload) == 1:
            alice.frame(NOTE_PREFERRED, payload)
            alice.settle()
        else:
            alice.end()


@scenario("unknown frames: skipped, whatever their size")
def unknown_frames(stage: Stage) -> None:
    alice = stage.login("alice")
    for kind in (0x00, 0x0B, 0x0F, 0x14, 0x15, 0x16, 0x17, 0x7F, 0xFF):
        for size in (0, 5, 100, 70_000):
            alice.frame(kind, bytes(size))
        alice.settle()
    alice.frame(0x42, bytes(3 << 20))
    alice.settle()


@scenario("unknown frames: those that only a server sends")
def server_frames(stage: Stage) -> None:
    alice = stage.login("alice")
    for kind, payload in (
        (SERVER_KEY, MAGIC + SERVER.public),
        (SERVER_INFO, bytes(50)),
        (RECV_PACKET, alice.key.public + b"forged"),
        (KEEP_ALIVE, b""),
        (PEER_GONE, alice.key.public + b"\x00"),
        (PEER_PRESENT, alice.key.public),
        (PONG, b"12345678"),
        (HEALTH, b"ill"),
        (RESTARTING, bytes(8)),
    ):
        alice.frame(kind, payload)
        alice.settle()
    alice.send(client_info(Key.named("bob"), b"{}", SERVER.public))
    alice.settle()
    alice.packet(alice, b"still alice")
    alice.settle()


@scenario("send packet: shorter than a key")
def short_send(stage: Stage) -> None:
    for size in (0, 1, 31):
        alice = stage.login("alice")
        alice.frame(SEND_PACKET, alice.key.public[:size])
        alice.end()


@scenario("send packet: up to the largest")
def send_sizes(stage: Stage) -> None:
    for tls in (False, True):
        alice, bob = stage.login("alice", tls=tls), stage.login("bob", tls=tls)
        for size in (0, 1, 31, 32, 33, 4091, 4096, 16384, 32768, 65535, 65536):
            alice.packet(bob, bytes(i % 253 for i in range(size)))
            bob.take()
        alice.settle()
        bob.settle()


@scenario("send packet: larger than the largest")
def too_large_send(stage: Stage) -> None:
    for size, sent in ((65537, 65537), (65537, 0), (100_000, 10), (0xFFFFFFFF - 32, 100)):
        alice, bob = stage.login("alice"), stage.login("bob")
        head = bytes([SEND_PACKET]) + (32 + size).to_bytes(4, "big")
        alice.send(head + bob.key.public + bytes(sent))
        alice.end()
        bob.settle()


@scenario("send packet: half of one")
def half_send(stage: Stage) -> None:
    alice, bob = stage.login("alice"), stage.login("bob")
    alice.send(frame(SEND_PACKET, bob.key.public + bytes(1000))[:-1])
    bob.settle()
    alice.close()
    bob.settle()


@scenario("send packet: byte by byte, and many in one write")
def splits(stage: Stage) -> None:
    alice, bob = stage.login("alice"), stage.login("bob")
    one = frame(SEND_PACKET, bob.key.public + b"a packet in pieces")
    for byte in one:
        alice.send(bytes([byte]))
    bob.take()
    many = b"".join(frame(SEND_PACKET, bob.key.public + b"packet %d" % i) for i in range(20))
    alice.send(many)
    bob.take(20)
    for cut in (1, 5, 6, 37, 38, len(one) - 1):
        alice.send(one[:cut])
        alice.send(one[cut:])
        bob.take()
    mixed = one + frame(0x42, b"unknown") + one + frame(PING, b"12345678") + one
    alice.send(mixed[:70])
    alice.send(mixed[70:])
    alice.take()
    bob.take(3)
    alice.settle()
    bob.settle()


@scenario("send packet: to several in turn, in one write")
def interleaved(stage: Stage) -> None:
    alice, bob, carol = (stage.login(name) for name in ("alice", "bob", "carol"))
    write = b""
    for number in range(12):
        to = (bob, carol, alice)[number % 3 if number < 6 else number // 2 % 3]
        write += frame(SEND_PACKET, to.key.public + b"number %d" % number)
    alice.send(write)
    for peer in (alice, bob, carol):
        peer.settle()


MESH_FRAMES = {
    "forward packet": (FORWARD_PACKET, Key.named("carol").public + Key.named("bob").public + b"hi"),
    "forward packet, empty": (FORWARD_PACKET, b""),
    "forward packet, short": (FORWARD_PACKET, bytes(63)),
    "forward packet, no payload": (FORWARD_PACKET, bytes(64)),
    "watch conns": (WATCH_CONNS, b""),
    "watch conns, with a payload": (WATCH_CONNS, b"x"),
    "close peer": (CLOSE_PEER, Key.named("bob").public),
    "close peer, short": (CLOSE_PEER, bytes(31)),
    "close peer, long": (CLOSE_PEER, Key.named("bob").public + b"x"),
    "close peer, itself": (CLOSE_PEER, Key.named("alice").public),
}


def mesh_scenario(name: str, kind: int, payload: bytes) -> None:
    @scenario(f"not permitted: {name}")
    def play(stage: Stage) -> None:
        bob = stage.login("bob")
        for info in (b"{}", b'{"meshKey":"' + b"0a" * 32 + b'"}'):
            alice = stage.connect("alice")
            alice.upgrade()
            alice.greet(info=info)
            alice.packet(bob, b"allowed")
            bob.take()
            alice.frame(kind, payload)
            alice.end()
            # Told once: bob's connection has noted that source for good.
            if info == b"{}":
                bob.take()
        bob.settle()


for _name, (_kind, _payload) in MESH_FRAMES.items():
    mesh_scenario(_name, _kind, _payload)
