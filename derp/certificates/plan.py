"""Which certificates the configuration asks for."""

from pathlib import Path
from typing import Final

import attrs

from certs.acme.authority import GOOGLE, LETS_ENCRYPT, Authority, ExternalAccount
from certs.acme.challenge import Kind
from certs.acme.store import certificate_file
from certs.files import PairFiles, pair_files
from certs.hostname import IPAddress, parse_ip
from derp.certificates.served import ByACME, Certificate
from derp.config import Config
from derp.config.field import ConfigError

SHORT_LIVED: Final = "shortlived"
"""The profile under which Let's Encrypt certifies addresses; it lasts about six days."""


@attrs.frozen
class OnDemand:
    """Certificates for the addresses that clients connect to, each had when it is asked for."""

    certdir: Path
    acme: ByACME
    named: tuple[IPAddress, ...]
    """Those that the operator has named, which have a certificate from the start."""
    public_only: bool
    """The authority certifies no others."""

    def certificate(self, address: IPAddress) -> Certificate | None:
        """Return the certificate to have for an address of ours; None where none is to be had.

        Behind NAT, where the operator has named the public addresses, a private one is none.
        """
        if address in self.named:
            return None
        if not address.is_global and (self.public_only or self.named):
            return None
        return _by_acme(self.certdir, (str(address),), self.acme)


@attrs.frozen
class Plan:
    """The certificates of a server."""

    certificates: tuple[Certificate, ...]
    """Those to have from the start."""
    on_demand: OnDemand | None = None


def make_plan(config: Config) -> Plan:
    """Return the plan for a configuration that serves HTTPS."""
    if config.tls.certificate is not None and config.tls.key is not None:
        files = PairFiles(config.tls.certificate, config.tls.key, "-tls-cert")
        return Plan((Certificate((config.tls.hostname,), files, is_operators=True),))
    if config.tls.certdir is None:
        raise ConfigError("certdir", "", "want a directory for certificates")
    if not config.serve_acme:
        files = pair_files(config.tls.certdir, config.tls.hostname)
        return Plan((Certificate((config.tls.hostname,), files),))
    return _acme_plan(config, config.tls.certdir)


def _acme_plan(config: Config, certdir: Path) -> Plan:
    address = parse_ip(config.tls.hostname)
    authority = _authority(config)
    challenges: list[Kind] = ["http-01", "tls-alpn-01"]
    if config.listening.http_port < 0:
        challenges.remove("http-01")
    elif config.listening.address.port == 443:
        # Clients need the port of this one anyway; that of the other may be closed.
        challenges.reverse()
    acme = ByACME(authority=authority, profile="", challenges=challenges)
    short_lived = attrs.evolve(acme, profile=SHORT_LIVED)
    own = () if address is None else (address,)
    named = tuple(dict.fromkeys((*own, *config.acme.ip_addresses)))
    certificates = []
    if address is None:
        certificates.append(_by_acme(certdir, (config.tls.hostname,), acme))
    if named:
        certificates.append(_by_acme(certdir, tuple(map(str, named)), short_lived))
    on_demand = None
    if config.acme.ip_certs:
        on_demand = OnDemand(certdir, short_lived, named, public_only=not config.acme.directory)
    return Plan(tuple(certificates), on_demand)


def _authority(config: Config) -> Authority:
    usual = GOOGLE if config.tls.mode == "gcp" else LETS_ENCRYPT
    external = None
    if config.acme.eab_kid:
        external = ExternalAccount(config.acme.eab_kid, config.acme.eab_key)
    return Authority(
        directory=config.acme.directory or usual,
        ca_bundle=config.acme.ca_bundle,
        email=config.acme.email,
        external_account=external,
    )


def _by_acme(certdir: Path, names: tuple[str, ...], acme: ByACME) -> Certificate:
    file = certificate_file(certdir, names[0])
    return Certificate(names, PairFiles(file, file), acme)
