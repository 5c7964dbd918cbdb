"""The flags that choose where certificates come from.

Names, defaults and rules are those of the Go derper (certProviderByCertMode of cmd/derper);
-tls-cert, -tls-key, -acme-directory, -acme-ca-bundle and -acme-ip-addresses are additions.
"""

from pathlib import Path
from typing import Final

import attrs

from certs.hostname import IPAddress, parse_ip
from derp.config import checks
from derp.config.field import ConfigError, option
from derp.config.goflags import BOOL, STRING

# ruff: noqa: RUF009 - option is attrs.field with a check

TLS: Final = "TLS certificates"
ACME: Final = "Certificates by ACME"

_PLACEHOLDER_HOSTNAME: Final = "your-hostname.com"
_DEFAULT_HOSTNAME: Final = "derp.tailscale.com"
ACME_MODES: Final = {"letsencrypt", "gcp"}


@attrs.frozen(kw_only=True, slots=False)
class CertificateOptions:
    """The fields about certificates."""

    hostname: str = option(
        "hostname",
        STRING,
        _DEFAULT_HOSTNAME,
        checks.hostname,
        group=TLS,
        variable="DERP_DOMAIN",
        placeholder="NAME",
        usage="The name that certificates are for. It may be an IP address, with -certmode manual "
        "to be served with a self-signed certificate, or with -acme-ip-certs.",
    )
    certmode: str = option(
        "certmode",
        STRING,
        "letsencrypt",
        checks.certmode,
        group=TLS,
        variable="DERP_CERT_MODE",
        placeholder="MODE",
        usage="Where certificates come from: letsencrypt; gcp (Google Trust Services); or manual, "
        "which reads NAME.crt and NAME.key in -certdir, NAME being the -hostname.",
    )
    certdir: Path | None = option(
        "certdir",
        STRING,
        "",
        checks.path,
        group=TLS,
        variable="DERP_CERT_DIR",
        placeholder="DIR",
        usage="Where certificates are kept.",
    )
    """Never None where `serve_tls`, unless there is a `tls_cert`."""
    tls_cert: Path | None = option(
        "tls-cert",
        STRING,
        "",
        checks.path,
        group=TLS,
        variable="DERP_TLS_CERT",
        placeholder="FILE",
        usage="With -certmode manual: the certificate chain, in place of NAME.crt.",
    )
    tls_key: Path | None = option(
        "tls-key",
        STRING,
        "",
        checks.path,
        group=TLS,
        variable="DERP_TLS_KEY",
        placeholder="FILE",
        usage="The key that belongs to -tls-cert; it may be the same file.",
    )
    acme_email: str = option(
        "acme-email",
        STRING,
        "",
        checks.email,
        group=ACME,
        variable="DERP_ACME_EMAIL",
        placeholder="ADDRESS",
        usage="Where the certificate authority may send notices; gcp wants one.",
    )
    acme_directory: str = option(
        "acme-directory",
        STRING,
        "",
        checks.directory_url,
        group=ACME,
        variable="DERP_ACME_DIRECTORY",
        placeholder="URL",
        usage="The directory of another ACME server, such as ZeroSSL's or one of your own.",
    )
    """Empty for the authority of the `certmode`."""
    acme_ca_bundle: Path | None = option(
        "acme-ca-bundle",
        STRING,
        "",
        checks.path,
        group=ACME,
        variable="DERP_ACME_CA_BUNDLE",
        placeholder="FILE",
        usage="Certificates in PEM that vouch for the ACME server itself, "
        "where the usual ones don't.",
    )
    acme_eab_kid: str = option(
        "acme-eab-kid",
        STRING,
        "",
        checks.key_id,
        group=ACME,
        variable="DERP_ACME_EAB_KID",
        placeholder="ID",
        usage="Key ID for External Account Binding, which gcp, ZeroSSL and others want.",
    )
    acme_eab_key: bytes = option(
        "acme-eab-key",
        STRING,
        "",
        checks.mac_key,
        group=ACME,
        variable="DERP_ACME_EAB_KEY",
        placeholder="KEY",
        secret=True,
        usage="HMAC key for External Account Binding, in base64.",
    )
    acme_ip_certs: bool = option(
        "acme-ip-certs",
        BOOL,
        "false",
        bool,
        group=ACME,
        variable="DERP_ACME_IP_CERTS",
        usage="Get certificates for the server's IP addresses too, each when the first client "
        "connects to it; they are renewed every few days.",
    )
    acme_ip_addresses: tuple[IPAddress, ...] = option(
        "acme-ip-addresses",
        STRING,
        "",
        checks.addresses,
        group=ACME,
        variable="DERP_ACME_IP_ADDRESSES",
        placeholder="LIST",
        usage="With -acme-ip-certs: the public addresses of a server behind NAT, "
        "with commas between them. They share one certificate, had at start.",
    )

    def check_certificates(self) -> None:
        """Check the rules that concern more than one field, where HTTPS is served.

        Raises ConfigError.
        """
        if self.hostname == _PLACEHOLDER_HOSTNAME:
            want = "that is a placeholder; want the DNS name or the IP address of this server"
            raise ConfigError("hostname", self.hostname, want)
        self._check_manual()
        self._check_acme()

    def _check_manual(self) -> None:
        """Check the rules of -certmode manual; its certificate may be anywhere."""
        own = self.tls_cert is not None
        if own != (self.tls_key is not None):
            flag = "tls-key" if own else "tls-cert"
            raise ConfigError(flag, "", "-tls-cert and -tls-key go together; want this one, too")
        if own and self.certmode != "manual":
            raise ConfigError("tls-cert", self.tls_cert, "want -certmode manual with it")
        if self.certdir is None and not own:
            raise ConfigError("certdir", "", "want a directory for certificates")

    def _check_acme(self) -> None:
        """Check the rules of the ACME modes. Matches certProviderByCertMode of cmd/derper."""
        if self.acme_ip_certs and self.certmode != "letsencrypt":
            raise ConfigError("acme-ip-certs", "true", "want -certmode letsencrypt with it")
        if self.acme_ip_addresses and not self.acme_ip_certs:
            listed = ",".join(map(str, self.acme_ip_addresses))
            raise ConfigError("acme-ip-addresses", listed, "want -acme-ip-certs with it")
        if self.certmode == "manual":
            want = "of no use with -certmode manual; want letsencrypt there"
            if self.acme_directory:
                raise ConfigError("acme-directory", self.acme_directory, want)
            if self.acme_ca_bundle is not None:
                raise ConfigError("acme-ca-bundle", self.acme_ca_bundle, want)
            return
        if self.hostname == _DEFAULT_HOSTNAME:
            want = "that is Tailscale's own; want the DNS name of this server"
            raise ConfigError("hostname", self.hostname, want)
        self._check_addresses()
        self._check_external_account()

    def _check_addresses(self) -> None:
        """Check that the authority certifies the addresses."""
        address = parse_ip(self.hostname)
        if address is not None and not self.acme_ip_certs:
            want = "an IP address; want -certmode manual for a self-signed certificate"
            if self.certmode == "letsencrypt":
                want += ", or -acme-ip-certs for one from Let's Encrypt"
            raise ConfigError("hostname", self.hostname, want)
        if self.acme_directory:
            return
        want = "Let's Encrypt certifies public addresses only; want one, or -certmode manual"
        if address is not None and not address.is_global:
            raise ConfigError("hostname", self.hostname, want)
        for named in self.acme_ip_addresses:
            if not named.is_global:
                raise ConfigError("acme-ip-addresses", named, want)

    def _check_external_account(self) -> None:
        """Check External Account Binding (RFC 8555, 7.3.4): all of it or nothing."""
        kid, key = self.acme_eab_kid, self.acme_eab_key
        if self.certmode == "gcp" and not (kid and key and self.acme_email):
            lacks = {"acme-eab-kid": kid, "acme-eab-key": key, "acme-email": self.acme_email}
            flag = next(name for name, value in lacks.items() if not value)
            raise ConfigError(flag, "", "want it: -certmode gcp goes with no account of less")
        if bool(kid) != bool(key):
            flag = "acme-eab-key" if kid else "acme-eab-kid"
            raise ConfigError(flag, "", "-acme-eab-kid and -acme-eab-key go together; want both")
        if kid and self.certmode == "letsencrypt" and not self.acme_directory:
            want = "Let's Encrypt takes none; want -certmode gcp, or the server's -acme-directory"
            raise ConfigError("acme-eab-kid", kid, want)
