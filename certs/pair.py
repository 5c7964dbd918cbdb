"""A certificate chain with its private key, as `certs.parse` makes it."""

import hashlib
from datetime import datetime

import attrs

from certs.hostname import IPAddress, is_covered


@attrs.frozen
class Pair:
    """A chain, its key, and the fields of the leaf."""

    chain_der: tuple[bytes, ...]
    """The leaf, then the intermediates in the order of the file; without the metacert."""
    key_pem: bytes = attrs.field(repr=False)
    """PKCS #8, unencrypted."""
    not_before: datetime
    not_after: datetime
    """Both timezone-aware; the leaf is valid at both ends."""
    dns_names: tuple[str, ...]
    ip_addresses: tuple[IPAddress, ...]
    """The subject alternative names; an IPv4-mapped address is given as the IPv4 one."""
    subject: str
    """The leaf's, as in RFC 4514 ("CN=192.0.2.7"); "" if it is damaged."""
    self_signed: bool
    warnings: tuple[str, ...] = ()
    """Lines for the operator on faults with which the pair can be served."""
    swap_warnings: tuple[str, ...] = ()
    """And on other users than this process's who could swap the files."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names and addresses of the leaf, as text."""
        return (*self.dns_names, *map(str, self.ip_addresses))

    def covers(self, name: str) -> bool:
        """Return whether the leaf is for `name`, a DNS name, a wildcard or an IP address."""
        return is_covered(name, self.dns_names, self.ip_addresses)

    @property
    def pin(self) -> str:
        """The leaf's `CertName` in a DERP map."""
        return cert_pin(self.chain_der[0])


def cert_pin(der: bytes) -> str:
    """Return the `CertName` that pins one certificate: "sha256-raw:" and 64 hex digits.

    A client with this pin accepts exactly this certificate, alone but for the metacert, without
    verifying a signature; name and dates must match (Go: tlsdial.SetConfigExpectedCertHash).
    """
    return f"sha256-raw:{hashlib.sha256(der).hexdigest()}"
