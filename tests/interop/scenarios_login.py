"""Exchanges about getting in: the upgrade, the client's info, its box and its size."""

import socket

from nacl.bindings import crypto_box

from tests.interop.rawderp import SERVER, EndedError, Key, SilentError, client_info
from tests.interop.stage import Difference, Peer, Stage, scenario
from tests.support.derp import (
    CLIENT_INFO,
    KEEP_ALIVE,
    PING,
    SEND_PACKET,
    UPGRADE,
    WATCH_CONNS,
    frame,
    upgrade_request,
)

FAST = (*UPGRADE, "Derp-Fast-Start: 1")


def greeted(stage: Stage, name: str = "alice") -> Peer:
    """Upgraded, and the server's key taken off the wire."""
    peer = stage.connect(name)
    peer.upgrade()
    peer.wire.take_frame()
    return peer


def tries(stage: Stage, login: bytes, name: str = "alice") -> None:
    """Log in with these bytes, and see whether it holds."""
    peer = greeted(stage, name)
    peer.send(login)
    try:
        answer = peer.describe(*peer.wire.take_frame())
    except EndedError:
        peer.note("refused")
    except SilentError:
        peer.note("(no answer)")
    else:
        peer.note(f"let in, {answer}")
        peer.settle()


@scenario("login: with a 101")
def login_101(stage: Stage) -> None:
    alice = stage.connect("alice")
    alice.send(upgrade_request(*UPGRADE))
    alice.response()
    alice.take()
    alice.send(client_info(alice.key, b'{"version":2}', SERVER.public))
    alice.take()
    alice.settle()


@scenario("login: fast start")
def login_fast(stage: Stage) -> None:
    for tls in (False, True):
        alice = stage.connect("alice", tls=tls)
        alice.send(upgrade_request(*FAST))
        alice.take()
        alice.send(client_info(alice.key, b'{"version":2}', SERVER.public))
        alice.take()
        alice.settle()


@scenario("login: only 1 means fast start")
def login_not_fast(stage: Stage) -> None:
    for value in ("0", "true", "", "01", "1, 1", "1 ", "\t1"):
        alice = stage.connect("alice")
        alice.send(upgrade_request(*UPGRADE, f"Derp-Fast-Start: {value}"))
        if value.strip() == "1":
            alice.take()
        else:
            alice.response()
            alice.take()


@scenario("login: all in one write, and more behind it")
def login_one_write(stage: Stage) -> None:
    for tls in (False, True):
        alice = stage.connect("alice", tls=tls)
        info = client_info(alice.key, b'{"version":2}', SERVER.public)
        packet = frame(SEND_PACKET, alice.key.public + b"to myself")
        alice.send(upgrade_request(*FAST) + info + packet + frame(PING, b"8 bytes."))
        alice.take(2)
        alice.take_any_order(2)
        alice.settle()


@scenario("login: byte by byte")
def login_bytewise(stage: Stage) -> None:
    alice = stage.connect("alice")
    info = client_info(alice.key, b'{"version":2}', SERVER.public)
    for byte in upgrade_request(*FAST) + info + frame(PING, b"8 bytes."):
        alice.send(bytes([byte]))
    alice.take(3)
    alice.settle()


INFOS = {
    "version 0": b'{"version":0}',
    "version 1": b'{"version":1}',
    "version 2": b'{"version":2}',
    "version 99": b'{"version":99}',
    "version negative": b'{"version":-1}',
    "version null": b'{"version":null}',
    "version a string": b'{"version":"2"}',
    "version true": b'{"version":true}',
    "version 2.0": b'{"version":2.0}',
    "version 2e0": b'{"version":2e0}',
    "version 02": b'{"version":02}',
    "version too large": b'{"version":9223372036854775808}',
    "version largest": b'{"version":9223372036854775807}',
    "version twice": b'{"version":1,"version":2}',
    "version twice, once wrong": b'{"version":"x","version":2}',
    "Version": b'{"Version":2}',
    "VERSION wrong": b'{"VERSION":"2"}',
    "as Tailscale sends it": b'{"version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}',
    "CanAckPings a number": b'{"CanAckPings":1}',
    "CanAckPings null": b'{"CanAckPings":null}',
    "canackpings wrong": b'{"canackpings":"yes"}',
    "IsProber a string": b'{"IsProber":"true"}',
    "AppName a number": b'{"AppName":5}',
    "AppName not UTF-8": b'{"AppName":"\xff\xfe"}',
    "AppName half a surrogate": b'{"AppName":"\\ud800"}',
    "AppName with a raw tab": b'{"AppName":"a\tb"}',
    "AppName with a raw NUL": b'{"AppName":"a\x00b"}',
    "AppName with DEL": b'{"AppName":"a\x7fb"}',
    "AppName with a wrong escape": b'{"AppName":"\\x41"}',
    "unknown field": b'{"version":2,"new":{"deep":[1,2,{"x":null}]}}',
    "empty object": b"{}",
    "null": b"null",
    "array": b"[]",
    "string": b'""',
    "number": b"2",
    "nothing": b"",
    "blank": b"  ",
    "garbage": b"garbage",
    "NUL bytes": bytes(10),
    "half an object": b'{"version":2',
    "trailing comma": b'{"version":2,}',
    "single quotes": b"{'version':2}",
    "NaN": b'{"new":NaN}',
    "Infinity": b'{"new":Infinity}',
    "comment": b'{"version":2}//',
    "two objects": b'{"version":2}{}',
    "space around": b' \t\r\n{"version" : 2 }\n',
    "form feed around": b'\x0c{"version":2}',
    "byte order mark": b'\xef\xbb\xbf{"version":2}',
    "UTF-16": '{"version":2}'.encode("utf-16"),
    "deep nesting": b'{"new":' + b"[" * 500 + b"]" * 500 + b"}",
    "too deep nesting": b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5000 digits": b'{"new":' + b"9" * 5000 + b"}",
    "an exponent out of range": b'{"new":1e999}',
    "meshKey empty": b'{"meshKey":""}',
    "meshKey null": b'{"meshKey":null}',
    "meshKey short": b'{"meshKey":"abcd"}',
    "meshKey not hex": b'{"meshKey":"' + b"x" * 64 + b'"}',
    "meshKey too long": b'{"meshKey":"' + b"a" * 66 + b'"}',
    "meshKey with a space": b'{"meshKey":" ' + b"a" * 63 + b'"}',
    "meshKey a number": b'{"meshKey":1}',
    "meshKey an object": b'{"meshKey":{}}',
    "meshKey well-formed": b'{"meshKey":"' + b"0a" * 32 + b'"}',
    "meshKey in capitals": b'{"meshKey":"' + b"0A" * 32 + b'"}',
    "meshKey zero": b'{"meshKey":"' + b"00" * 32 + b'"}',
    "MESHKEY empty": b'{"MESHKEY":""}',
    "meshKey twice, first wrong": b'{"meshKey":"","meshKey":"' + b"0a" * 32 + b'"}',
}


LET_IN = 'alice: let in, ServerInfo {"version": 2}'


def laxer(why: str) -> dict[str, Difference]:
    """Ours lets in what the Go derper refuses."""
    return {"alice: refused": Difference((LET_IN, "alice: settled"), why)}


def stricter(why: str) -> dict[str, Difference]:
    """Ours refuses what the Go derper lets in."""
    return {LET_IN: Difference("alice: refused", why), "alice: settled": Difference((), why)}


INFO_DIFFERS = {
    "version too large": laxer("any whole number will do, for nothing depends on it"),
    "a number of 5000 digits": stricter("Python reads no such numbers; no client sends any"),
}


def info_scenario(name: str, info: bytes) -> None:
    @scenario(f"client info: {name}", INFO_DIFFERS.get(name))
    def play(stage: Stage) -> None:
        tries(stage, client_info(Key.named("alice"), info, SERVER.public))


for _name, _info in INFOS.items():
    info_scenario(_name, _info)


@scenario("client info: sealed to another server")
def wrong_server(stage: Stage) -> None:
    tries(stage, client_info(Key.named("alice"), b'{"version":2}', Key.named("bob").public))


@scenario("client info: sealed with another key than stated")
def wrong_client(stage: Stage) -> None:
    alice, bob = Key.named("alice"), Key.named("bob")
    box = bob.seal(SERVER.public, b'{"version":2}')
    tries(stage, frame(CLIENT_INFO, alice.public + box))


@scenario("client info: any byte of it wrong")
def flipped(stage: Stage) -> None:
    right = client_info(Key.named("alice"), b'{"version":2}', SERVER.public)
    for place in (5, 36, 37, 60, 61, 76, 77, len(right) - 1):
        wrong = bytearray(right)
        wrong[place] ^= 1
        tries(stage, bytes(wrong))


@scenario("client info: too short")
def short_info(stage: Stage) -> None:
    whole = Key.named("alice").public + Key.named("alice").seal(SERVER.public, b"{}")
    for length in (0, 1, 31, 32, 55, 56, 57, 71, 72, len(whole) - 1):
        tries(stage, frame(CLIENT_INFO, whole[:length]))


@scenario("client info: an empty message in the box")
def empty_box(stage: Stage) -> None:
    tries(stage, client_info(Key.named("alice"), b"", SERVER.public))


def info_of(length: int) -> bytes:
    """A whole frame whose payload has this length; JSON allows any blanks."""
    overhead = 32 + 24 + 16
    return client_info(Key.named("alice"), b'{"version":2}'.ljust(length - overhead), SERVER.public)


@scenario("client info: as long as may be")
def longest_info(stage: Stage) -> None:
    tries(stage, info_of(256 << 10))


@scenario("client info: one byte too long")
def too_long_info(stage: Stage) -> None:
    alice = greeted(stage)
    alice.send(info_of((256 << 10) + 1))
    alice.end()


@scenario("client info: a length that nobody means")
def huge_info(stage: Stage) -> None:
    alice = greeted(stage)
    alice.send(bytes([CLIENT_INFO]) + b"\xff\xff\xff\xff" + Key.named("alice").public)
    alice.end()


@scenario("client info: another frame in its place")
def other_first_frame(stage: Stage) -> None:
    for first in (
        frame(PING, b"8 bytes."),
        frame(SEND_PACKET, Key.named("bob").public + b"hello"),
        frame(0x77, b"new"),
        frame(KEEP_ALIVE),
        frame(WATCH_CONNS),
    ):
        alice = greeted(stage)
        alice.send(first + client_info(alice.key, b"{}", SERVER.public))
        alice.end()


@scenario("client info: a key of zeros")
def zero_key(stage: Stage) -> None:
    alice = greeted(stage)
    alice.send(frame(CLIENT_INFO, bytes(32) + bytes(24) + bytes(40)))
    alice.end()


@scenario("client info: keys of low order")
def low_order(stage: Stage) -> None:
    points = (
        (1).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 20).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    )
    for point in points:
        alice = greeted(stage)
        alice.send(frame(CLIENT_INFO, point + bytes(24) + bytes(40)))
        alice.end()


@scenario("client info: the relay's own key")
def own_key(stage: Stage) -> None:
    alice = greeted(stage)
    nonce = bytes(24)
    box = nonce + crypto_box(b'{"version":2}', nonce, SERVER.public, SERVER.private)
    alice.send(frame(CLIENT_INFO, SERVER.public + box))
    alice.key = SERVER
    alice.take()
    alice.settle()


@scenario("client info: the same box twice")
def replayed(stage: Stage) -> None:
    same = client_info(Key.named("alice"), b"{}", SERVER.public, bytes(24))
    tries(stage, same)
    tries(stage, same)


@scenario("client info: none for ten seconds")
def silent_login(stage: Stage) -> None:
    silent, dribbling = greeted(stage, "alice"), greeted(stage, "bob")
    info = client_info(dribbling.key, b"{}", SERVER.public)
    for byte in info[:10]:
        dribbling.send(bytes([byte]))
    silent.end(patience=15)
    dribbling.end(patience=15)


@scenario("login: hang up at every step")
def hang_up(stage: Stage) -> None:
    everything = upgrade_request(*FAST) + client_info(Key.named("alice"), b"{}", SERVER.public)
    for end in (0, 1, 10, len(upgrade_request(*FAST)), -100, -1, len(everything)):
        peer = stage.connect("alice")
        peer.send(everything[:end])
        peer.close()
    stage.login("bob").settle()


@scenario("login: a client that only shuts down its own direction")
def half_closed(stage: Stage) -> None:
    """Shutting down one direction is the end of the connection for both derpers."""
    alice = stage.login("alice")
    alice.packet(alice, b"last words")
    alice.take()
    alice.wire.sock.shutdown(socket.SHUT_WR)
    alice.end()
