"""The configuration: one frozen `Config`, validated when it is constructed.

Each field of its parts is one flag: name, environment variable, default, help, and the check of its
value. Rules between fields are methods of the part, or of Config. All values are checked here.

    general, listening, proxies, certificates, acmedns, verification, devicelists, accounts, mesh,
    pages, monitoring, control, limits
                   the parts
    certplan       the certificates that a configuration asks for
    listeners      the addresses of all listeners, and the rule that none overlap
    field          fields that are flags, and parts that have them
    checks         one check for each sort of value     (addresses: those to listen on)
    memorysize     an amount of memory: bytes, or a share of the machine's
    goflags        flags in the syntax of Go's package flag     (strconv: numbers as Go reads them)
    refused        flags of the Go derper that this program refuses
    environment    variables that stand for no flag

Names, defaults and value syntax are those of the Go derper (cmd/derper), the variables those of
derper-docker. Nothing here does I/O.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from derp.config import listeners
from derp.config.accounts import Accounts
from derp.config.acmedns import ACMEDNS
from derp.config.certificates import ACME, ACME_MODES, TLS
from derp.config.control import Control
from derp.config.devicelists import DeviceLists
from derp.config.field import ConfigError, flags_of, part
from derp.config.general import General
from derp.config.goflags import BOOL, Flag, Setting
from derp.config.limits import Limits
from derp.config.listening import STUN, TCP, Listening
from derp.config.mesh import Mesh
from derp.config.monitoring import Monitoring
from derp.config.pages import Debug, Pages
from derp.config.proxies import Proxies
from derp.config.refused import REFUSED
from derp.config.verification import Verification
from derp.errors import UsageError
from derp.net.listenaddress import Address

_DEV_ADDRESS: Final = Address("", 3340)
_ROOT_KEY_PATH: Final = "/var/lib/derper/derper.key"


@attrs.frozen(kw_only=True)
class Config:
    """Everything that an operator sets; the parts are in the order of the help.

    Durations are seconds. Raises ConfigError for what can't be served on any machine.
    """

    general: General = part("General", General)
    listening: Listening = part("Listening", Listening)
    stun: STUN = part("Listening", STUN)
    proxies: Proxies = part("Behind a proxy", Proxies)
    tls: TLS = part("TLS certificates", TLS)
    acme: ACME = part("Certificates by ACME", ACME)
    dns: ACMEDNS = part("Certificates by ACME", ACMEDNS)
    verification: Verification = part("Who may use the relay", Verification)
    devices: DeviceLists = part("Who may use the relay: devices of an API", DeviceLists)
    accounts: Accounts = part("Accounts", Accounts)
    mesh: Mesh = part("Other relays of the region", Mesh)
    pages: Pages = part("Pages", Pages)
    debug: Debug = part("Who may see /debug/", Debug)
    monitoring: Monitoring = part("Monitoring", Monitoring)
    control: Control = part("Control of the running relay", Control)
    limits: Limits = part("Limits", Limits)
    tcp: TCP = part("TCP connections", TCP)

    def __attrs_post_init__(self) -> None:
        """Check the rules between parts."""
        if self.general.key_file is None and not self.general.dev:
            raise ConfigError(
                "c", "", "want the path of the key file; only root and -dev need none"
            )
        if self.verification.url_ca_bundle is not None and not (
            self.verification.urls or self.devices.given
        ):
            want = "want -verify-client-url, -verify-tailnet or -verify-headscale with it"
            raise ConfigError("verify-client-url-ca-bundle", self.verification.url_ca_bundle, want)
        if self.verification.require_all and not self.verifies_clients:
            want = "want what has to admit clients, such as -verify-clients, with it"
            raise ConfigError("verify-all", "", want)
        if self.verification.isolate and not (
            self.verifies_clients or self.verification.policy is not None
        ):
            want = "want what admits clients, such as -verify-clients, or -policy, with it"
            raise ConfigError("isolate", "", want)
        self.mesh.check(self.general)
        listeners.check(
            {
                "a": self.listening.addresses,
                "http-port": self.plain_addresses,
                "metrics-addr": self.monitoring.addresses,
            },
            self.stun_addresses,
        )
        if not self.serve_tls:
            return
        self.tls.check()
        self.dns.check(self.tls)
        self.acme.check(self.tls)

    @property
    def serve_tls(self) -> bool:
        """Whether HTTPS is served, not HTTP. Matches tsweb.IsProd443 and its use in cmd/derper.

        -acme-directory, -acme-dns and -acme-dns-exec, which the Go derper does not have, imply
        HTTPS on any port.
        """
        is_https_port = any(address.port == 443 for address in self.listening.ip_addresses)
        by_acme_only = self.acme.directory != "" or self.dns.flag != ""
        return is_https_port or self.tls.mode == "manual" or by_acme_only

    @property
    def verifies_clients(self) -> bool:
        """Whether clients are checked by more than the policy."""
        return self.verification.enabled or self.devices.given

    @property
    def serve_acme(self) -> bool:
        """Whether HTTPS is served with certificates by ACME."""
        return self.serve_tls and self.tls.mode in ACME_MODES

    @property
    def counts_bytes(self) -> bool:
        """Whether the bytes of each key are counted: for the accounts, or for quotas."""
        return self.accounts.file is not None or self.verification.policy is not None

    @property
    def plain_addresses(self) -> list[Address]:
        """The addresses of plain HTTP beside HTTPS: each IP address of -a, at -http-port."""
        if not self.serve_tls or self.listening.http_port < 0:
            return []
        return listeners.at_port(self.listening.ip_addresses, self.listening.http_port)

    @property
    def stun_addresses(self) -> list[Address]:
        """The addresses of STUN: those of -stun-addr, or else each IP address of -a.

        If -a has unix sockets only, all addresses: the proxies before them answer no STUN.
        """
        if not self.stun.enabled:
            return []
        if self.stun.addresses:
            return [address.at(self.stun.port) for address in self.stun.addresses]
        return listeners.at_port(self.listening.ip_addresses or [Address("", 0)], self.stun.port)

    @property
    def control_path(self) -> Path | None:
        """The path of the control socket; None for no socket."""
        return self.control.path(self.general.key_file)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Config":
        """Return the configuration with these `values`, by flag name. Raises ConfigError."""
        parts = {}
        for field in attrs.fields(cls):
            kind = field.metadata["part"]
            flags = flags_of(kind).items()
            given = {name: values[flag.name] for name, flag in flags if flag.name in values}
            parts[field.name] = kind(**given)
        return cls(**parts)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Setting]) -> "Config":
        """Return the configuration of parsed flags and variables. Raises UsageError."""
        for setting in settings.values():
            flag = setting.flag
            if flag.unsupported and setting.value != flag.default_value:
                raise UsageError(f"{setting.spelling}: {flag.unsupported}")
        values: dict[str, Any] = {name: setting.value for name, setting in settings.items()}
        values["c"] = values["c"] or settings["c"].flag.default
        if values["dev"]:
            values |= {"a": _DEV_ADDRESS, "c": None}
        try:
            return cls.from_values(values)
        except ConfigError as error:
            raise settings[error.flag].wrong(error.want) from None


def flag_table(environ: Mapping[str, str], *, root: bool) -> list[Flag]:
    """Return all flags, with the Go derper's defaults for this user: -c has one for `root` only."""
    home = environ.get("HOME", "")
    defaults = {
        "c": _ROOT_KEY_PATH if root else "",
        "certdir": _default_certdir(environ),
        "secrets-cache-dir": str(Path(home, ".cache", "derper-secrets")),
    }
    flags = [
        attrs.evolve(flag, group=field.metadata["heading"])
        for field in attrs.fields(Config)
        for flag in flags_of(field.metadata["part"]).values()
    ]
    version = Flag(
        name="version",
        kind=BOOL,
        default="false",
        group=flags[0].group,
        usage="Print the version and exit.",
    )
    return [
        attrs.evolve(flag, default=defaults.get(flag.name, flag.default))
        for flag in [flags[0], version, *flags[1:], *REFUSED]
    ]


def _default_certdir(environ: Mapping[str, str]) -> str:
    """Return a directory in the user's cache; empty without one. Matches tsweb.DefaultCertDir."""
    cache, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    if not (Path(cache).is_absolute() if cache else home):
        return ""
    return str(Path(cache or f"{home}/.cache", "tailscale", "derper-certs"))
