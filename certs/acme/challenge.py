"""The ACME challenges by which an authority validates names, with their answers.

http-01 validates by HTTP on TCP port 80 (RFC 8555, 8.3), tls-alpn-01 by TLS on port 443 (RFC 8737),
dns-01 by a TXT record (RFC 8555, 8.4). All answers are made of the key authorization: token, dot,
thumbprint of the account key.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal

import attrs

from certs.pair import Pair

Kind = Literal["http-01", "tls-alpn-01", "dns-01"]
"""The type of a challenge (RFC 8555, 8)."""

ALPN_PROTOCOL: Final = "acme-tls/1"
"""The ALPN protocol of TLS-ALPN-01 (RFC 8737, 6.2)."""
ALPN_OFFER: Final = (ALPN_PROTOCOL.encode("ascii"),)
"""The ALPN protocols in the ClientHello of an authority that validates (RFC 8737, 3)."""


@attrs.frozen
class HTTP01:
    """http-01: GET /.well-known/acme-challenge/`token` gets `body` (application/octet-stream)."""

    token: str
    body: str


@attrs.frozen
class TLSALPN01:
    """tls-alpn-01: a ClientHello for `server_name` with ALPN "acme-tls/1" alone gets `pair`.

    For an IP address, `server_name` is its reverse name (RFC 8738, 6): "1.2.0.192.in-addr.arpa".
    """

    server_name: str
    pair: Pair


@attrs.frozen
class DNS01:
    """dns-01: a TXT record at _acme-challenge.`domain` has `value`."""

    domain: str
    """The name that is validated; of a wildcard, what comes after "*."."""
    value: str
    """The SHA-256 digest of the key authorization, in base64url."""


Challenge = HTTP01 | TLSALPN01
"""A challenge that listeners answer."""
AnyChallenge = Challenge | DNS01

Present = Callable[[Sequence[AnyChallenge]], AbstractContextManager[None]]
"""Answers challenges while its context lasts. Called in the thread that orders."""
