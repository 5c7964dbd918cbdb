"""The flags for DNS challenges, by which names are validated without ports 80 and 443.

All are additions.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from certs.dns01.options import DNSOptions, Resolver
from certs.hostname import is_wildcard, parse_ip
from derp.config.certificates import ACME_MODES, TLS
from derp.config.field import ConfigError, file_option, option
from derp.config.goflags import DURATION, STRING

_WITH_PORT: Final = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]|(?P<ip4>[0-9.]+)):(?P<port>[1-9][0-9]{0,4})",
    re.ASCII,
)


def provider_name(value: str) -> str:
    """Check the name of a DNS provider; empty for none."""
    if not re.fullmatch(r"[a-z0-9_]{0,40}", value):
        raise ValueError("want rfc2136, or the name of a provider as dns-lexicon has it")
    return value


def resolvers(value: str | Iterable[Resolver]) -> tuple[Resolver, ...]:
    """Check a list of name servers, `ip`, `ip:port` or `[ip6]:port`; commas separate them."""
    if not isinstance(value, str):
        return tuple(value)
    entries = [part.strip() for part in value.split(",")] if value else []
    return tuple(dict.fromkeys(map(_resolver, entries)))


def _resolver(text: str) -> Resolver:
    if (address := parse_ip(text)) is not None:
        return Resolver(str(address))
    match = _WITH_PORT.fullmatch(text)
    address = None if match is None else parse_ip(match["ip6"] or match["ip4"])
    if match is None or address is None or int(match["port"]) > 65535:
        raise ValueError("want IP addresses, each with or without a port, with commas between them")
    return Resolver(str(address), int(match["port"]))


def at_least_a_second(value: float) -> float:
    """Check a duration of a second or more."""
    if not value >= 1.0:
        raise ValueError("want a duration of 1s or more")
    return float(value)


@attrs.frozen(kw_only=True)
class ACMEDNS:
    """The provider or the program that sets DNS records for an ACME server; by default, neither."""

    provider: str = option(
        "acme-dns",
        STRING,
        provider_name,
        variable="DERP_ACME_DNS",
        placeholder="PROVIDER",
        usage="Validate names by DNS, with records set at this provider: rfc2136 for dynamic "
        "updates with TSIG, or one that dns-lexicon knows, such as cloudflare, aliyun or dnspod. "
        "Then no port 80 or 443 is needed, and wildcards are possible.",
    )
    credentials: Path | None = file_option(
        "acme-dns-credentials",
        variable="DERP_ACME_DNS_CREDENTIALS",
        usage="File with the provider's variables, in lines NAME=value, such as "
        "LEXICON_CLOUDFLARE_AUTH_TOKEN; or for rfc2136 a key file of tsig-keygen's. Those that it "
        "lacks are taken from the environment.",
    )
    program: Path | None = file_option(
        "acme-dns-exec",
        variable="DERP_ACME_DNS_EXEC",
        usage="Validate names by DNS, with records set by this program, which is called as "
        "certbot calls its manual hooks: to set a record, and again to remove it.",
    )
    cleanup_program: Path | None = file_option(
        "acme-dns-exec-cleanup",
        variable="DERP_ACME_DNS_EXEC_CLEANUP",
        usage="Program that removes records, if -acme-dns-exec does not.",
    )
    resolvers: tuple[Resolver, ...] = option(
        "acme-dns-resolvers",
        STRING,
        resolvers,
        variable="DERP_ACME_DNS_RESOLVERS",
        placeholder="LIST",
        usage="Name servers to find zones by, as ip or ip:port with commas between them, where "
        "those of this machine have other zones than the internet.",
    )
    wait: float = option(
        "acme-dns-wait",
        DURATION,
        at_least_a_second,
        default="5m",
        variable="DERP_ACME_DNS_WAIT",
        usage="How long the records of an order may take, until all name servers show them.",
    )

    @property
    def flag(self) -> str:
        """The flag that asks for DNS challenges; empty if none does."""
        if self.provider:
            return "acme-dns"
        return "acme-dns-exec" if self.program is not None else ""

    @property
    def options(self) -> DNSOptions | None:
        """The options of certs.dns01; None without DNS challenges."""
        if not self.flag:
            return None
        return DNSOptions(
            provider=self.provider,
            program=self.program,
            cleanup_program=self.cleanup_program,
            credentials=self.credentials,
            resolvers=self.resolvers,
            wait=self.wait,
        )

    def check(self, tls: TLS) -> None:
        """Check the rules between fields, where HTTPS is served. Raises ConfigError."""
        if self.provider and self.program is not None:
            raise ConfigError("acme-dns-exec", self.program, "want it or -acme-dns, not both")
        if self.cleanup_program is not None and self.program is None:
            want = "want -acme-dns-exec with it"
            raise ConfigError("acme-dns-exec-cleanup", self.cleanup_program, want)
        if self.credentials is not None and not self.flag:
            want = "want -acme-dns or -acme-dns-exec with it"
            raise ConfigError("acme-dns-credentials", self.credentials, want)
        if self.flag and tls.mode not in ACME_MODES:
            want = "of no use with -certmode manual; want letsencrypt there"
            raise ConfigError(self.flag, self.provider or self.program, want)
        if self.flag and tls.hostname_is_ip:
            want = "DNS says nothing of an address; want a name as -hostname"
            raise ConfigError(self.flag, self.provider or self.program, want)
        wildcards = [name for name in tls.hostnames if is_wildcard(name)]
        if wildcards and tls.mode in ACME_MODES and not self.flag:
            want = "a wildcard is validated by DNS only; want -acme-dns or -acme-dns-exec with it"
            raise ConfigError("hostname", wildcards[0], want)
