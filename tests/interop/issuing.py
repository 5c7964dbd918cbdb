"""A relay that gets its certificates from pebble, and what its clients see of that."""

import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from cryptography import x509

from tests.interop.pebble import Pebble
from tests.interop.rawderp import PATIENCE, SERVER
from tests.interop.relay import Relay, chain_sent, write_key_file
from tests.support.waiting import until

INTERNAL_ERROR = "TLSV1_ALERT_INTERNAL_ERROR"
ACCOUNT_KEY = "acme_account+key"
UNRECOGNIZED_NAME = "TLSV1_UNRECOGNIZED_NAME"

Dial = Callable[[tuple[str, int]], socket.socket]


def dial_here(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, PATIENCE)


def acme_relay(
    command: Sequence[str],
    folder: Path,
    authority: Pebble,
    hostname: str,
    host: str,
    *flags: str,
    **fields: object,
) -> Relay:
    """A relay at `host`, an address like 127.0.0.11, to which the name is made to lead.

    It listens on the ports where pebble validates, and keeps its certificates in a folder that is
    not there yet, unless `fields` of Relay say otherwise.
    """
    folder.mkdir(exist_ok=True)
    write_key_file(folder / "derper.key", SERVER.private)
    if not is_address(hostname):
        authority.names.point(hostname, host)
    asked = ["-acme-directory", authority.directory, "-acme-ca-bundle", str(authority.bundle)]
    settings: dict[str, object] = {
        "host": host,
        "listen": host,
        "port": authority.tls_port,
        "http_port": authority.http_port,
        "certdir": folder / "certs",
        "certmode": "letsencrypt",
        "flags": [*asked, *flags],
        **fields,
    }
    return Relay("relay", command, folder, hostname=hostname, **settings)  # type: ignore[arg-type]


def is_address(hostname: str) -> bool:
    return ":" in hostname or hostname.replace(".", "").isdigit()


def hang_up(relay: Relay) -> None:
    """SIGHUP: look at the files, and try what is due or has failed."""
    relay.check_alive()
    assert relay.process
    relay.process.send_signal(signal.SIGHUP)


@attrs.frozen
class Shaken:
    """What a handshake came to: certificates (DER), or an alert."""

    chain: Sequence[bytes] = ()
    """The leaf and what vouches for it."""
    metacert: bytes = b""
    """It came last; a relay makes itself another one each time that it starts."""
    alert: str = ""

    @property
    def leaf(self) -> x509.Certificate:
        assert self.chain, self.alert
        return x509.load_der_x509_certificate(self.chain[0])


def shake(
    address: tuple[str, int],
    name: str | None,
    trust: ssl.SSLContext | None = None,
    dial: Dial = dial_here,
) -> Shaken:
    """Shake hands, believing anything unless told whom to trust. An IP address sends no SNI.

    Raises ssl.SSLCertVerificationError.
    """
    if trust is None:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    with dial(address) as raw:
        try:
            with trust.wrap_socket(raw, server_hostname=name) as tls:
                *chain, metacert = chain_sent(tls)
        except ssl.SSLCertVerificationError:
            raise
        except ssl.SSLError as error:
            return Shaken(alert=error.reason or str(error))
    return Shaken(chain, metacert)


def shake_with(relay: Relay, trust: ssl.SSLContext | None = None) -> Shaken:
    """As a client that wants what this relay is for."""
    return shake((relay.host, relay.port), relay.hostname, trust)


def issued(relay: Relay, authority: Pebble, other_than: bytes = b"") -> Shaken:
    """Wait until the relay serves a certificate of this authority, other than that leaf."""

    def served() -> Shaken | None:
        relay.check_alive()
        # The second time, another worker may answer, which has not read the certificate yet.
        for trust in (None, authority.trust()):
            found = shake_with(relay, trust)
            if not found.chain or found.chain[0] == other_than:
                return None
        return found

    try:
        return until("a certificate is served", served)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{relay.log}") from None


def renewed(relay: Relay, authority: Pebble, old: bytes) -> Shaken:
    """Have a certificate (DER) renewed at once, and wait until the new one is served."""
    authority.suggest(old, hours=-2)
    hang_up(relay)
    return issued(relay, authority, other_than=old)


def forget_account(relay: Relay) -> None:
    """Have the next order made by a new account, so that the authority validates for certain.

    Of an account that it knows, pebble reuses a validation now and then, even where it is told
    never to: PEBBLE_AUTHZREUSE=0 is one order in a hundred.
    """
    (relay.certdir / ACCOUNT_KEY).unlink()


def answer_to_name(address: tuple[str, int], name: str) -> bytes:
    """The first record in answer to a ClientHello with just this server name.

    Python's own names no IP address, so it is made with another name of the same length.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stand_in = "x" * len(name)
    client = context.wrap_bio(incoming, outgoing, server_hostname=stand_in)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        hello = outgoing.read()
    assert hello.count(stand_in.encode()) == 1
    with dial_here(address) as sock:
        sock.sendall(hello.replace(stand_in.encode(), name.encode()))
        with sock.makefile("rb") as answer:
            head = answer.read(5)
            return head + answer.read(int.from_bytes(head[3:], "big"))


RECORD_ALERT, RECORD_HANDSHAKE = 21, 22
UNRECOGNIZED_NAME_ALERT = bytes([2, 112])
"""RFC 8446, 6: fatal, unrecognized_name."""
