"""The ssl.SSLContexts for the relay's connections.

    make_context            serves the host's certificate, with the metacert
    make_waiting_context    refuses every client, as there is no certificate for what it asks
    make_challenge_context  answers a TLS-ALPN-01 challenge of a certificate authority
    make_alpn_refusal       refuses the protocols of a client, where a relay hides

Contexts match the Go derper, but accept clients that Go's TLS refuses without need. A context never
changes: a renewed certificate gets a new one, for new connections.
"""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from certs.acme.challenge import ALPN_PROTOCOL
from certs.errors import CertificateFileError, UnusablePairError
from certs.hostname import is_among, parse_ip
from certs.pair import Pair

HIDDEN_PROTOCOLS = (b"http/1.1", b"http/1.0", b"http/0.9")
"""What nginx takes by ALPN; a client that offers others only is refused."""
NO_APPLICATION_PROTOCOL = 120
"""The alert (RFC 7301, 3.2), which module ssl does not name."""


def make_context(pair: Pair, metacert_der: bytes, *names: str) -> ssl.SSLContext:
    """Return a server context that serves `pair` for `names`, to be used with `wrap_bio`.

    - TLS 1.2 and 1.3. The chain is the leaf, its intermediates, and last the metacert.
    - ALPN selects "http/1.1" if offered. Any other client goes on without ALPN (Go ends the
      handshake of one that offers only other protocols).
    - A server name other than `names`, or none, gets the alert unrecognized_name. A wildcard stands
      for each name that it covers. If `names` has an IP address, every server name is accepted.
    - The client's order of ciphers decides: it knows whether it has AES in hardware.
    - No session tickets, renegotiation or compression: a DERP connection lives for days, so
      resumption gains nothing and its state would cost memory.

    With an empty `metacert_der` there is no metacert, and the context is like that of an nginx with
    `ssl_protocols TLSv1.2 TLSv1.3`: it has its ciphers, its protocols for ALPN, and session
    tickets. A client whose protocols it refuses has to get `make_alpn_refusal`.

    For a server name that is not ASCII, the `ssl` module ends the handshake with an SSLError, and
    reports a UnicodeDecodeError to sys.unraisablehook.

    The key is not written to a disk if the system has memory files. Raises UnusablePairError for a
    key or signature that OpenSSL's security level calls too weak; CertificateFileError if neither a
    memory file nor a temporary file can be made.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    chain: tuple[bytes, ...] = pair.chain_der
    if metacert_der:
        chain = (*chain, metacert_der)
        context.set_alpn_protocols(["http/1.1"])
    else:
        _imitate_nginx(context)
    if not any(map(parse_ip, names)):
        context.sni_callback = partial(_refuse_other_names, names)
    _load(context, chain, pair.key_pem, ", ".join(names))
    return context


def make_alpn_refusal(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context for clients that offer no protocol that `context` of a hidden relay takes.

    It refuses server names as `context` does, and all others with no_application_protocol.
    """
    refusal = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(refusal)

    def refuse(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int:
        other: Any = context.sni_callback
        alert = None if other is None else other(tls, name, context)
        return alert or NO_APPLICATION_PROTOCOL

    refusal.sni_callback = refuse
    return refusal


class WaitingContext(ssl.SSLContext):
    """A server context without a certificate, which refuses every client."""

    refusal: str
    """The reason for the log (read by derp.net.tls): why there is no certificate for the client."""


def make_waiting_context(
    refusal: str, alert: int = ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
) -> WaitingContext:
    """Return a server context that answers every ClientHello with `alert`.

    `alert` is one of ssl.ALERT_DESCRIPTION_*; Go's TLS sends internal_error without a certificate.
    Some handshakes end earlier, as with `make_context`: those of clients without TLS 1.2 by
    protocol_version, those with a malformed server name by another alert.
    """
    context = WaitingContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.refusal = refusal
    context.sni_callback = lambda _tls, _name, _context: alert
    return context


def make_challenge_context(pair: Pair) -> ssl.SSLContext:
    """Return a server context that serves `pair` as the answer to a TLS-ALPN-01 challenge.

    RFC 8737, 3: `pair` without a metacert, and ALPN "acme-tls/1". The caller checks that the
    ClientHello offers only this, for the challenge's server name. Raises as `make_context` does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.set_alpn_protocols([ALPN_PROTOCOL])
    _load(context, pair.chain_der, pair.key_pem, ", ".join(pair.names))
    return context


def _refuse_other_names(
    names: Collection[str], _tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext
) -> int | None:
    if name is None or not is_among(name, names):
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return None


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0


def _imitate_nginx(context: ssl.SSLContext) -> None:
    context.set_ciphers("HIGH:!aNULL:!MD5")
    context.set_alpn_protocols([protocol.decode() for protocol in HIDDEN_PROTOCOLS])
    context.options &= ~ssl.OP_NO_TICKET
    context.num_tickets = 2


def _load(context: ssl.SSLContext, chain_der: Iterable[bytes], key_pem: bytes, host: str) -> None:
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, chain_der)).encode("ascii") + key_pem
    try:
        with contextlib.ExitStack() as stack:
            # `ssl` loads a key only from a file.
            context.load_cert_chain(_memory_file(pem, stack) or _private_file(pem, stack))
    except ssl.SSLError as error:
        raise UnusablePairError(
            f"the certificate for {host!r} is not fit for TLS: OpenSSL says {error.reason}; "
            f"have one issued with SHA-256 signatures throughout, for a key of at least "
            f"2048 bits (RSA) or 256 (ECDSA)"
        ) from error


def _memory_file(content: bytes, stack: contextlib.ExitStack) -> str | None:
    """Return the path of a file in memory; None outside Linux, or without access to /proc.

    A program with file capabilities can't open its own /proc/self/fd.
    """
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("certificate")
        stack.callback(os.close, descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        path.write_bytes(content)
    except OSError:
        return None
    return str(path)


def _private_file(content: bytes, stack: contextlib.ExitStack) -> str:
    try:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="derper-"))
        path = Path(directory, "certificate.pem")
        path.touch(mode=0o600)
        path.write_bytes(content)
    except OSError as error:
        raise CertificateFileError(
            f"no place to hand the key to OpenSSL ({error.strerror}); "
            f"mount /proc, or point TMPDIR at a directory that the relay can write to"
        ) from error
    return str(path)
