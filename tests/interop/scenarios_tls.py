"""Exchanges about TLS: versions, names, protocols, and what is not TLS."""

import contextlib
import socket
import ssl

from tests.interop.rawderp import PATIENCE, Wire
from tests.interop.stage import Difference, Peer, Stage, scenario
from tests.support.derp import upgrade_request


def handshake(stage: Stage, title: str, context: ssl.SSLContext, name: str | None) -> None:
    """Shake hands, ask for one page, and write down what was agreed on."""
    raw = socket.create_connection(stage.place.tls, timeout=PATIENCE)
    try:
        tls = context.wrap_socket(raw, server_hostname=name)
    except OSError:
        raw.close()
        stage.note(f"{title}: refused")
        return
    peer = Peer(stage, title, Wire(tls))
    stage.peers.append(peer)
    stage.note(f"{title}: {tls.version()} protocol {tls.selected_alpn_protocol()}")
    peer.send(upgrade_request(path="/derp/probe"))
    peer.response()


def loose() -> ssl.SSLContext:
    """A client that does not look at names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@scenario("TLS: versions")
def versions(stage: Stage) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = stage.place.tls_context()
        context.minimum_version = context.maximum_version = version
        handshake(stage, version.name, context, "localhost")


AGREED = ("TLSv1.3 protocol None", "HTTP 200 access-control-allow-origin: *", "body b''")


@scenario(
    "TLS: names",
    {
        "name LOCALHOST: refused": Difference(
            tuple(f"name LOCALHOST: {line}" for line in AGREED),
            "host names are the same in capitals",
        )
    },
)
def names(stage: Stage) -> None:
    for name in ("localhost", "LOCALHOST", "example.com", "localhost.example.com", None):
        handshake(stage, f"name {name}", loose(), name)


@scenario("TLS: application protocols")
def protocols(stage: Stage) -> None:
    for offered in ([], ["http/1.1"], ["h2", "http/1.1"], ["http/1.1", "h2"], ["foo", "http/1.1"]):
        context = stage.place.tls_context()
        if offered:
            context.set_alpn_protocols(offered)
        handshake(stage, f"offering {offered}", context, "localhost")


@scenario(
    "TLS: application protocols that nobody speaks",
    {
        "offering foo: refused": Difference(
            tuple(f"offering foo: {line}" for line in AGREED),
            "OpenSSL then goes on without an application protocol",
        )
    },
)
def unknown_protocols(stage: Stage) -> None:
    context = stage.place.tls_context()
    context.set_alpn_protocols(["foo"])
    handshake(stage, "offering foo", context, "localhost")


@scenario("TLS: ciphers of 1.2")
def ciphers(stage: Stage) -> None:
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        context = stage.place.tls_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(cipher)
        handshake(stage, cipher, context, "localhost")


GARBAGE = {
    "HTTP": upgrade_request(path="/derp/probe"),
    "zeros": bytes(100),
    "a record too long": bytes.fromhex("160301ffff") + bytes(100),
    "a hello of nonsense": bytes.fromhex("1603010010") + bytes(range(16)),
    "an alert": bytes.fromhex("15030100020228"),
    "SSL 2": bytes.fromhex("802e0100020015000000100100800300800700c0") + bytes(30),
}


@scenario("TLS: garbage in its place")
def garbage(stage: Stage) -> None:
    for title, data in GARBAGE.items():
        wire = Wire(socket.create_connection(stage.place.tls, timeout=PATIENCE))
        wire.send(data)
        # What is said in parting (an alert, or a line of HTTP) is each derper's own.
        wire.rest()
        wire.close()
        stage.note(f"{title}: closed")


@scenario("TLS: hang up at every step")
def hang_up(stage: Stage) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = loose().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        hello = outgoing.read()
    for end in (0, 1, 5, 6, 100, len(hello)):
        wire = Wire(socket.create_connection(stage.place.tls, timeout=PATIENCE))
        wire.send(hello[:end])
        if end == len(hello):
            wire.take(5)
        wire.close()
    stage.login("bob", tls=True).settle()


@scenario("TLS: the orderly goodbye")
def goodbye(stage: Stage) -> None:
    alice = stage.login("alice", tls=True)
    alice.packet(alice, b"last words")
    alice.take()
    sock = alice.wire.sock
    assert isinstance(sock, ssl.SSLSocket)
    with contextlib.suppress(OSError):
        sock.unwrap()
    stage.login("alice", tls=True).settle()
