"""The certificates that a configuration asks for."""

from pathlib import Path
from typing import Final

import attrs

from certs.acme.authority import GOOGLE, LETS_ENCRYPT, Authority, ExternalAccount
from certs.acme.challenge import Kind
from certs.files import PairFiles, pair_files
from certs.hostname import parse_ip
from certs.tasks.plan import ACMEOptions, CertificateSpec, OnDemand, Plan, acme_certificate
from derp.config import Config
from derp.config.field import ConfigError

SHORT_LIVED: Final = "shortlived"
"""Let's Encrypt's profile for IP addresses; its certificates last about six days."""


def make_plan(config: Config) -> Plan:
    """Return the plan for a configuration with `serve_tls`. Raises ConfigError."""
    if config.tls.certificate is not None and config.tls.key is not None:
        files = PairFiles(config.tls.certificate, config.tls.key, "-tls-cert")
        return Plan((CertificateSpec(config.tls.hostnames, files, operator_managed=True),))
    if config.tls.certdir is None:
        raise ConfigError("certdir", "", "want a directory for certificates")
    if not config.serve_acme:
        files = pair_files(config.tls.certdir, config.tls.hostnames[0])
        return Plan((CertificateSpec(config.tls.hostnames, files),))
    return _acme_plan(config, config.tls.certdir)


def _acme_plan(config: Config, certdir: Path) -> Plan:
    address = parse_ip(config.tls.hostname)
    authority = _authority(config)
    challenges: list[Kind] = ["http-01", "tls-alpn-01"]
    if not config.plain_addresses:
        challenges.remove("http-01")
    elif any(address.port == 443 for address in config.listening.ip_addresses):
        # Port 443 is open, as clients need it; port 80 may be closed.
        challenges.reverse()
    acme = ACMEOptions(authority=authority, profile="", challenges=challenges)
    short_lived = attrs.evolve(acme, profile=SHORT_LIVED)
    if (dns := config.dns.options) is not None:
        # Addresses can't be validated so.
        acme = attrs.evolve(acme, challenges=["dns-01"], dns=dns)
    own = () if address is None else (address,)
    named = tuple(dict.fromkeys((*own, *config.acme.ip_addresses)))
    certificates = []
    if address is None:
        certificates.append(acme_certificate(certdir, config.tls.hostnames, acme))
    if named:
        certificates.append(acme_certificate(certdir, tuple(map(str, named)), short_lived))
    on_demand = None
    if config.acme.ip_certs:
        on_demand = OnDemand(certdir, short_lived, named, public_only=not config.acme.directory)
    return Plan(tuple(certificates), on_demand)


def _authority(config: Config) -> Authority:
    default = GOOGLE if config.tls.mode == "gcp" else LETS_ENCRYPT
    external = None
    if config.acme.eab_kid:
        external = ExternalAccount(config.acme.eab_kid, config.acme.eab_key)
    return Authority(
        directory=config.acme.directory or default,
        ca_bundle=config.acme.ca_bundle,
        email=config.acme.email,
        external_account=external,
    )
