"""Logging in with a node key, for tests of who may: what came of it, and how soon."""

import os
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.interop.rawderp import SERVER, EndedError, Key, SilentError, Wire, client_info
from tests.interop.relay import Relay
from tests.support.derp import (
    KEEP_ALIVE,
    MAGIC,
    PEER_GONE,
    RECV_PACKET,
    SEND_PACKET,
    SERVER_INFO,
    SERVER_KEY,
    UPGRADE,
    frame,
    upgrade_request,
)

ADMITTED, REFUSED, UNDECIDED = "admitted", "refused", "undecided"

DEADLINE = 20.0
"""Seconds: no verdict takes as long."""


def hello(key: Key, *more: bytes) -> bytes:
    """Everything that a client has to say to log in, before it has heard anything."""
    head = upgrade_request(*UPGRADE, "Derp-Fast-Start: 1")
    return b"".join([head, client_info(key, {"version": 2}, SERVER.public), *more])


def dial(relay: Relay, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> Wire:
    """A connection from that address of the loopback."""
    sock = socket.create_connection((relay.host, relay.port), DEADLINE, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(tls.wrap_socket(sock, server_hostname="localhost") if tls else sock)


def verdict_of(wire: Wire, patience: float = DEADLINE) -> str:
    """What comes of a login that is under way."""
    try:
        while True:
            kind, payload = wire.take_frame(patience)
            if kind == SERVER_INFO:
                return ADMITTED
            assert (kind, payload) == (SERVER_KEY, MAGIC + SERVER.public), (kind, payload)
    except EndedError:
        return REFUSED
    except SilentError:
        return UNDECIDED


def log_in(
    relay: Relay, key: Key, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1"
) -> Wire:
    """A client that was admitted."""
    wire = dial(relay, tls, source)
    wire.send(hello(key))
    verdict = verdict_of(wire)
    if verdict != ADMITTED:
        wire.close()
        raise AssertionError(f"{key.name} is {verdict}:\n{relay.log}")
    return wire


def pass_packet(sender: Wire, sender_key: Key, receiver: Wire, receiver_key: Key) -> None:
    """Both are there, and a packet comes through."""
    payload = os.urandom(8)
    sender.send(frame(SEND_PACKET, receiver_key.public + payload))
    while (got := receiver.take_frame())[0] != RECV_PACKET:
        assert got[0] in {KEEP_ALIVE, PEER_GONE}, got
    assert got == (RECV_PACKET, sender_key.public + payload)


def wait_for_end(wire: Wire, patience: float = DEADLINE) -> None:
    """The relay hangs up. Raises SilentError if it does not."""
    wire.rest(patience)


def verdict(relay: Relay, key: Key, source: str = "127.0.0.1", patience: float = DEADLINE) -> str:
    """Log in and leave again."""
    wire = dial(relay, source=source)
    try:
        wire.send(hello(key))
        return verdict_of(wire, patience)
    finally:
        wire.close()


def verdicts(relay: Relay, keys: Iterable[Key], patience: float = DEADLINE) -> list[str]:
    """Of many who come at once, in their order."""
    wanted = list(keys)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return list(pool.map(lambda key: verdict(relay, key, patience=patience), wanted))
