"""The flags that choose where certificates come from.

Names, defaults and rules are those of the Go derper (certProviderByCertMode of cmd/derper);
-tls-cert, -tls-key, -acme-directory, -acme-ca-bundle and -acme-ip-addresses are additions.
"""

from pathlib import Path
from typing import Final

import attrs

from certs.hostname import IPAddress, is_wildcard, parse_ip
from derp.config import checks
from derp.config.field import ConfigError, bool_option, file_option, option
from derp.config.goflags import STRING
from derp.net.address import is_ip

DEFAULT_HOSTNAME: Final = "derp.tailscale.com"
PLACEHOLDER_HOSTNAME: Final = "your-hostname.com"
"""derper-docker's default."""
ACME_MODES: Final = {"letsencrypt", "gcp"}


@attrs.frozen(kw_only=True)
class TLS:
    """The hostname of HTTPS, and where its certificate comes from."""

    hostnames: tuple[str, ...] = option(
        "hostname",
        STRING,
        checks.certificate_names,
        default=DEFAULT_HOSTNAME,
        variable="DERP_DOMAIN",
        placeholder="NAME",
        usage="The name that the certificate is for, or names with commas between them; or an IP "
        "address, with -acme-ip-certs, or with -certmode manual for a self-signed certificate. "
        "A wildcard, *.example.com, takes -acme-dns or -acme-dns-exec, or -certmode manual.",
    )
    """DNS names and wildcards; or one IP address."""
    mode: str = option(
        "certmode",
        STRING,
        checks.certificate_mode,
        default="letsencrypt",
        variable="DERP_CERT_MODE",
        placeholder="MODE",
        usage="Where certificates come from: letsencrypt; gcp (Google Trust Services); or manual, "
        "which reads NAME.crt and NAME.key in -certdir, NAME being the first -hostname.",
    )
    certdir: Path | None = option(
        "certdir",
        STRING,
        checks.optional_path,
        variable="DERP_CERT_DIR",
        placeholder="DIR",
        usage="The directory of certificates and their keys.",
    )
    """None only with `certificate`, or without HTTPS."""
    certificate: Path | None = file_option(
        "tls-cert",
        variable="DERP_TLS_CERT",
        usage="With -certmode manual: the certificate chain, in place of NAME.crt.",
    )
    key: Path | None = file_option(
        "tls-key",
        variable="DERP_TLS_KEY",
        usage="The key that belongs to -tls-cert; it may be the same file.",
    )

    @property
    def hostname(self) -> str:
        """The first hostname that is no wildcard; or else a name that the first wildcard covers."""
        named = [name for name in self.hostnames if not is_wildcard(name)]
        return named[0] if named else self.hostnames[0].replace("*", "derper", 1)

    @property
    def hostname_is_ip(self) -> bool:
        """Whether the hostname is an IP address, which no client sends as its SNI."""
        return is_ip(self.hostname)

    def check(self) -> None:
        """Check the rules between fields, where HTTPS is served. Raises ConfigError."""
        if PLACEHOLDER_HOSTNAME in self.hostnames:
            want = "that is a placeholder; want the DNS name or the IP address of this server"
            raise ConfigError("hostname", PLACEHOLDER_HOSTNAME, want)
        given = self.certificate is not None
        if given != (self.key is not None):
            flag = "tls-key" if given else "tls-cert"
            raise ConfigError(flag, "", "-tls-cert and -tls-key go together; want this one, too")
        if given and self.mode != "manual":
            raise ConfigError("tls-cert", self.certificate, "want -certmode manual with it")
        if self.certdir is None and not given:
            raise ConfigError("certdir", "", "want a directory for certificates")


@attrs.frozen(kw_only=True)
class ACME:
    """The ACME server, and the account and certificates there."""

    email: str = option(
        "acme-email",
        STRING,
        checks.email_address,
        variable="DERP_ACME_EMAIL",
        placeholder="ADDRESS",
        usage="Email address for the certificate authority's notices; gcp requires one.",
    )
    directory: str = option(
        "acme-directory",
        STRING,
        checks.directory_url,
        variable="DERP_ACME_DIRECTORY",
        placeholder="URL",
        usage="Directory URL of another ACME server, such as ZeroSSL's or one of your own.",
    )
    """Empty for the authority of `TLS.mode`."""
    ca_bundle: Path | None = file_option(
        "acme-ca-bundle",
        variable="DERP_ACME_CA_BUNDLE",
        usage="Root certificates in PEM for the ACME server itself, in place of the public ones.",
    )
    eab_kid: str = option(
        "acme-eab-kid",
        STRING,
        checks.account_key_id,
        variable="DERP_ACME_EAB_KID",
        placeholder="ID",
        usage="Key ID for External Account Binding, which gcp, ZeroSSL and others require.",
    )
    eab_key: bytes = option(
        "acme-eab-key",
        STRING,
        checks.mac_key,
        variable="DERP_ACME_EAB_KEY",
        placeholder="KEY",
        secret=True,
        usage="HMAC key for External Account Binding, in base64.",
    )
    ip_certs: bool = bool_option(
        "acme-ip-certs",
        default="false",
        variable="DERP_ACME_IP_CERTS",
        usage="Get certificates for the server's IP addresses too, each when the first client "
        "connects to it; they are renewed every few days.",
    )
    ip_addresses: tuple[IPAddress, ...] = option(
        "acme-ip-addresses",
        STRING,
        checks.ip_addresses,
        variable="DERP_ACME_IP_ADDRESSES",
        placeholder="LIST",
        usage="With -acme-ip-certs: the public addresses of a server behind NAT, "
        "with commas between them. They share one certificate, obtained at start.",
    )

    def check(self, tls: TLS) -> None:
        """Check the rules between fields, where HTTPS is served. Raises ConfigError."""
        if self.ip_certs and tls.mode != "letsencrypt":
            raise ConfigError("acme-ip-certs", "true", "want -certmode letsencrypt with it")
        if self.ip_addresses and not self.ip_certs:
            listed = ",".join(map(str, self.ip_addresses))
            raise ConfigError("acme-ip-addresses", listed, "want -acme-ip-certs with it")
        if tls.mode == "manual":
            want = "of no use with -certmode manual; want letsencrypt there"
            if self.directory:
                raise ConfigError("acme-directory", self.directory, want)
            if self.ca_bundle is not None:
                raise ConfigError("acme-ca-bundle", self.ca_bundle, want)
            return
        if DEFAULT_HOSTNAME in tls.hostnames:
            want = "that is Tailscale's own; want the DNS name of this server"
            raise ConfigError("hostname", DEFAULT_HOSTNAME, want)
        self._check_addresses(tls)
        self._check_external_account(tls)

    def _check_addresses(self, tls: TLS) -> None:
        """Check that the authority will certify the addresses that are asked for."""
        address = parse_ip(tls.hostname)
        if address is not None and not self.ip_certs:
            want = "an IP address; want -certmode manual for a self-signed certificate"
            if tls.mode == "letsencrypt":
                want += ", or -acme-ip-certs for one from Let's Encrypt"
            raise ConfigError("hostname", tls.hostname, want)
        if self.directory:
            return
        want = "Let's Encrypt certifies public addresses only; want one, or -certmode manual"
        if address is not None and not address.is_global:
            raise ConfigError("hostname", tls.hostname, want)
        for named in self.ip_addresses:
            if not named.is_global:
                raise ConfigError("acme-ip-addresses", named, want)

    def _check_external_account(self, tls: TLS) -> None:
        """Check External Account Binding (RFC 8555, 7.3.4): all of it or nothing."""
        kid, key = self.eab_kid, self.eab_key
        if tls.mode == "gcp" and not (kid and key and self.email):
            needs = {"acme-eab-kid": kid, "acme-eab-key": key, "acme-email": self.email}
            flag = next(name for name, value in needs.items() if not value)
            raise ConfigError(flag, "", "-certmode gcp needs this flag")
        if bool(kid) != bool(key):
            flag = "acme-eab-key" if kid else "acme-eab-kid"
            raise ConfigError(flag, "", "-acme-eab-kid and -acme-eab-key go together; want both")
        if kid and tls.mode == "letsencrypt" and not self.directory:
            want = "Let's Encrypt takes none; want -certmode gcp, or the server's -acme-directory"
            raise ConfigError("acme-eab-kid", kid, want)
