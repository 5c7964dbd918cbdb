"""The certificates that a relay serves: their names, their files, how each is obtained."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from certs.acme.authority import Authority
from certs.acme.challenge import Kind
from certs.acme.store import certificate_file
from certs.dns01.options import DNSOptions
from certs.files import PairFiles
from certs.hostname import IPAddress


@attrs.frozen(kw_only=True)
class ACMEOptions:
    """The options of an order by ACME."""

    authority: Authority
    profile: str
    """One of the authority's profiles; "" for its default."""
    challenges: Sequence[Kind]
    """One or more kinds, in the order to try them."""
    dns: DNSOptions | None = None
    """How records are set for "dns-01"; None where that is not among `challenges`."""


@attrs.frozen
class CertificateSpec:
    """A certificate to serve."""

    names: tuple[str, ...]
    """DNS names and IP addresses; the file is named for the first."""
    files: PairFiles
    acme: ACMEOptions | None = None
    operator_managed: bool = False
    """Whether only the operator writes the files."""

    @property
    def names_text(self) -> str:
        """The names, for a log line."""
        return " ".join(self.names)


def acme_certificate(certdir: Path, names: tuple[str, ...], acme: ACMEOptions) -> CertificateSpec:
    """Return the specification of a certificate by ACME, which has one file."""
    file = certificate_file(certdir, names[0])
    return CertificateSpec(names, PairFiles(file, file), acme)


@attrs.frozen
class OnDemand:
    """Certificates for the addresses that clients connect to, each ordered on the first request."""

    certdir: Path
    acme: ACMEOptions
    named: tuple[IPAddress, ...]
    """The addresses in -acme-ip-addresses, which have a certificate from the start."""
    public_only: bool
    """Whether the authority certifies public addresses only."""

    def certificate(self, address: IPAddress) -> CertificateSpec | None:
        """Return the certificate for an address of this server; None if none can be issued.

        A private address gets none where the operator has named the public ones (behind NAT).
        """
        if address in self.named:
            return None
        if not address.is_global and (self.public_only or self.named):
            return None
        return acme_certificate(self.certdir, (str(address),), self.acme)


@attrs.frozen
class Plan:
    """The certificates of a server."""

    certificates: tuple[CertificateSpec, ...]
    """Served from the start."""
    on_demand: OnDemand | None = None
