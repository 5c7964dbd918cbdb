"""Exchanges among several peers: unknown destinations, who is told who left, duplicates."""

import selectors
import time

from tests.interop.rawderp import SERVER, Key
from tests.interop.stage import Peer, Stage, scenario, until_received, wait_until_gone
from tests.support.derp import PING, SEND_PACKET, frame

DISCO = "TS💬".encode()
DISCO_LENGTH = len(DISCO) + 32 + 24
"""The shortest packet that passes for disco: the magic, a key and a nonce."""


def disco(length: int = 100) -> bytes:
    return DISCO.ljust(length, b".")


@scenario("unknown destination: no answer, unless it is disco")
def unknown_destination(stage: Stage) -> None:
    alice = stage.login("alice")
    for payload in (b"", b"hello", bytes(1000), DISCO, disco(DISCO_LENGTH - 1), b"x" + disco()):
        alice.packet(Key.named("nobody"), payload)
        alice.settle()
    for payload in (disco(DISCO_LENGTH), disco(1000)):
        alice.packet(Key.named("nobody"), payload)
        alice.take()
    alice.settle()


@scenario("unknown destination: at most three answers at once")
def unknown_limit(stage: Stage) -> None:
    alice, bob = stage.login("alice"), stage.login("bob")
    strangers = [Key.named(f"{name}2") for name in ("alice", "bob", "carol", "dave")]
    write = b"".join(frame(SEND_PACKET, key.public + disco()) for key in strangers * 3)
    alice.send(write)
    alice.take_any_order(3)
    alice.settle()
    # Each connection has its own measure.
    bob.packet(Key.named("nobody"), disco())
    bob.take()
    bob.settle()


@scenario("unknown destination: the key of zeros, and the relay's own")
def strange_destinations(stage: Stage) -> None:
    alice = stage.login("alice")
    for public in (bytes(32), SERVER.public):
        alice.frame(SEND_PACKET, public + b"hello")
        alice.settle()
        alice.frame(SEND_PACKET, public + disco())
        alice.take()
        alice.settle()


@scenario("to oneself")
def to_self(stage: Stage) -> None:
    alice = stage.login("alice")
    for payload in (b"", b"myself", disco(), bytes(65536)):
        alice.packet(alice, payload)
        alice.take()
    alice.settle()


@scenario("gone: told to those who got packets, in either direction")
def gone(stage: Stage) -> None:
    leaver, friend, sender, stranger = (
        stage.login(name) for name in ("leaver", "friend", "sender", "stranger")
    )
    leaver.packet(friend, b"hello")
    friend.take()
    sender.packet(leaver, b"hello")
    leaver.take()
    leaver.close()
    friend.take()
    for peer in (friend, sender, stranger):
        peer.settle()


@scenario("gone: once for each connection and peer")
def gone_once(stage: Stage) -> None:
    friend = stage.login("friend")
    for life in range(3):
        leaver = stage.login("leaver")
        late = stage.login("alice")
        for number in range(3):
            leaver.packet(friend, b"life %d, packet %d" % (life, number))
        friend.take(3)
        leaver.packet(late, b"hello")
        late.take()
        leaver.close()
        late.take()
        if life == 0:
            friend.take()
        friend.settle()
        late.settle()
        late.close()


@scenario("gone: by a violation, too")
def gone_by_violation(stage: Stage) -> None:
    leaver, friend = stage.login("leaver"), stage.login("friend")
    leaver.packet(friend, b"hello")
    friend.take()
    leaver.frame(PING, b"short")
    leaver.end()
    friend.take()
    friend.settle()


@scenario("gone: not to one who talks to himself")
def gone_self(stage: Stage) -> None:
    alice = stage.login("alice")
    bob = stage.login("bob")
    alice.packet(alice, b"myself")
    alice.take()
    alice.packet(bob, b"goodbye")
    bob.take()
    alice.close()
    bob.take()
    bob.settle()
    stage.login("alice").settle()


@scenario("gone: disco to one who left")
def gone_then_disco(stage: Stage) -> None:
    alice, leaver = stage.login("alice"), stage.login("leaver")
    leaver.packet(alice, b"hello")
    alice.take()
    wait_until_gone(alice, leaver)
    alice.packet(leaver, b"are you there?")
    alice.settle()
    alice.packet(leaver, disco())
    alice.take()
    alice.settle()


def pair(stage: Stage, *names: str) -> list[Peer]:
    """Connections that share the key of "double", named as told."""
    return [stage.login(name, "double") for name in names]


@scenario("duplicates: the last to log in gets the traffic")
def last_login(stage: Stage) -> None:
    sender = stage.login("sender")
    peers: list[Peer] = []
    for name in ("first", "second", "third", "fourth"):
        peers += pair(stage, name)
        sender.packet(peers[0], b"for " + name.encode())
        peers[-1].take()
    for peer in peers[1:-1]:
        assert peer.key == peers[0].key
    sender.settle()


@scenario("duplicates: any frame makes a connection the active one")
def last_writer(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    wakers = {
        # The one that follows each: of two at once, the Go derper may answer only one.
        "ping": b"",
        "unknown": frame(0x42, b"x"),
        "keepalive": frame(0x06),
        "note preferred": frame(0x07, b"\x00"),
        "packet": frame(SEND_PACKET, sender.key.public + b"hello"),
        "packet to nobody": frame(SEND_PACKET, Key.named("nobody").public + b"hello"),
    }
    for name, waker in wakers.items():
        for active, silent in ((first, second), (second, first)):
            # A ping makes its sender active as well, so the silent one settles before.
            silent.settle()
            active.send(waker + frame(PING, name.encode().ljust(8)[:8]))
            active.take()
            if name == "packet":
                sender.take()
            sender.packet(first, b"after " + name.encode())
            active.take()


@scenario("duplicates: half a frame is not yet activity")
def half_frame(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    first.send(frame(PING, b"12345678")[:4])
    sender.packet(first, b"whose?")
    second.take()


@scenario("duplicates: the header of a frame is activity")
def header_only(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    second.settle()
    # The frame before it is answered, so the header behind it has been seen soon after.
    first.send(frame(PING, b"12345678") + frame(PING, b"12345678")[:5])
    first.take()
    sender.packet(first, b"whose?")
    first.take()


@scenario("duplicates: the active one leaves, of two")
def active_leaves(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    sender.packet(first, b"before")
    second.take()
    second.close()
    until_received(sender, first, b"after")


@scenario("duplicates: the silent one leaves, of two")
def silent_leaves(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    sender.packet(first, b"before")
    second.take()
    first.close()
    for number in range(5):
        sender.packet(second, b"after %d" % number)
        second.take()
    second.settle()
    third = pair(stage, "third")[0]
    sender.packet(third, b"and again")
    third.take()


@scenario("duplicates: the active one leaves, of three that never sent")
def active_leaves_silent(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second, third = pair(stage, "first", "second", "third")
    sender.packet(first, b"before")
    third.take()
    third.close()
    # Whoever settles sends; so ask only the one that should take over.
    took_over(stage, sender, [first, second])


@scenario("duplicates: the active one leaves, of three that have sent in turn")
def active_leaves_history(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second, third = pair(stage, "first", "second", "third")
    for peer in (first, second, third, second, first):
        peer.settle()
    first.close()
    took_over(stage, sender, [second, third])


@scenario("duplicates: all leave, one after another")
def all_leave(stage: Stage) -> None:
    sender = stage.login("sender")
    peers = pair(stage, "first", "second", "third", "fourth")
    for peer in (peers[1], peers[3], peers[0], peers[2]):
        peer.settle()
    remaining = list(peers)
    for leaver in (peers[2], peers[0], peers[3]):
        remaining.remove(leaver)
        leaver.close()
        took_over(stage, sender, remaining)


def took_over(stage: Stage, sender: Peer, candidates: list[Peer]) -> None:
    """Which of the connections gets the traffic; none of them sends anything meanwhile."""
    deadline = time.monotonic() + 10
    with selectors.DefaultSelector() as selector:
        for peer in candidates:
            selector.register(peer.wire.sock, selectors.EVENT_READ, peer)
        while time.monotonic() < deadline:
            sender.packet(candidates[0], b"who is there?")
            sender.barrier()
            if ready := selector.select(timeout=0.05):
                for key, _ in ready:
                    key.data.take()
                break
        else:
            stage.note("(nobody took over)")
    # What was sent twice may still be on its way.
    for key, _ in ready:
        key.data.wire.buffer = b""


@scenario("duplicates: gone is said when the last one leaves")
def last_leaves(stage: Stage) -> None:
    friend, sender = stage.login("friend"), stage.login("sender")
    first, second = pair(stage, "first", "second")
    for peer in (first, second):
        peer.packet(friend, b"hello")
        friend.take()
    second.close()
    until_received(sender, first, b"over to you")
    friend.settle()
    first.close()
    friend.take()
    friend.settle()


@scenario("duplicates: both connections are told that a friend left")
def both_told(stage: Stage) -> None:
    leaver = stage.login("leaver")
    first, second = pair(stage, "first", "second")
    for peer in (first, second):
        peer.settle()
        leaver.packet(peer, b"hello")
        peer.take()
    leaver.close()
    first.take()
    second.take()
    first.settle()
    second.settle()


@scenario("duplicates: one sends to its own key")
def duplicate_to_self(stage: Stage) -> None:
    first, second = pair(stage, "first", "second")
    second.packet(first, b"from the newer")
    second.take()
    first.packet(first, b"from the older")
    first.take()
    first.settle()
    second.settle()


@scenario("duplicates: sources are not mixed up")
def duplicate_sources(stage: Stage) -> None:
    bob = stage.login("bob")
    first, second = pair(stage, "first", "second")
    for number in range(5):
        first.packet(bob, b"first %d" % number)
        bob.take()
        second.packet(bob, b"second %d" % number)
        bob.take()
    bob.settle()


@scenario("duplicates: no health message, nobody is muted")
def nobody_muted(stage: Stage) -> None:
    sender = stage.login("sender")
    first, second = pair(stage, "first", "second")
    for _ in range(10):
        first.settle()
        second.settle()
    sender.packet(first, b"still here?")
    second.take()
    first.settle()
    second.settle()
