"""The ACME challenges by which an authority validates names, with their answers.

http-01 validates by HTTP on TCP port 80 (RFC 8555, 8.3), tls-alpn-01 by TLS on port 443 (RFC 8737).
Both answers hold the key authorization: token, dot, thumbprint of the account key.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Literal

import attrs

from certs.pair import Pair

Kind = Literal["http-01", "tls-alpn-01"]
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


Challenge = HTTP01 | TLSALPN01

Present = Callable[[Challenge], AbstractContextManager[None]]
"""Answers a challenge while its context lasts. Called in the thread that orders."""
