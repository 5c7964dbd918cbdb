"""What the program is told to do: one frozen `Config`, validated when it is made.

Each field of `Config` is one flag and says everything about it: name, environment variable,
default, help and the check that its value must pass. Rules between fields stand below them.
Nothing else in the program checks a configured value again.

    certificates, verification, mesh, limits, debug    the fields of one subject each
    certplan       the certificates that a configuration asks for
    field          how a field says that it is a flag
    checks         what a value may be: one check for each sort of value
    memorysize     how much memory something may take
    goflags        flags in the syntax of Go's package flag     (strconv: numbers as Go reads them)
    refused        flags of the Go derper that this program refuses
    environment    variables that stand for no flag

Names, defaults and value syntax are those of the Go derper (cmd/derper), the variables those of
derper-docker. Nothing here touches the network or the file system.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from derp.config import checks
from derp.config.certificates import ACME, ACME_MODES, TLS, CertificateOptions
from derp.config.checks import Address
from derp.config.debug import DEBUG, DebugOptions
from derp.config.field import ConfigError, flag_of, option
from derp.config.goflags import BOOL, DURATION, FLOAT, INT, STRING, Flag, Setting
from derp.config.limits import LIMITS, LimitOptions
from derp.config.memorysize import MemorySize, memory_size
from derp.config.mesh import MESH, MeshOptions
from derp.config.refused import REFUSED
from derp.config.verification import VERIFY, VerifyOptions
from derp.errors import UsageError
from derp.http.bootstrap_dns import Name
from derp.net.address import is_ip

# ruff: noqa: RUF009 - option is attrs.field with a check


_GENERAL: Final = "General"
_LISTENING: Final = "Listening"
_WEB: Final = "Pages"
_TCP: Final = "TCP connections"
_GROUPS: Final = (_GENERAL, _LISTENING, TLS, ACME, VERIFY, MESH, _WEB, DEBUG, LIMITS, _TCP)
"""In the order of the help."""

_DEV_ADDRESS: Final = Address("", 3340)
_ROOT_KEY_PATH: Final = "/var/lib/derper/derper.key"


@attrs.frozen(kw_only=True)
class Config(CertificateOptions, VerifyOptions, MeshOptions, LimitOptions, DebugOptions):
    """Everything the operator decides. Durations are seconds.

    Any combination that can be constructed can be served, as far as that can be known without
    looking at the machine; everything else raises ConfigError.
    """

    dev: bool = option(
        "dev",
        BOOL,
        "false",
        bool,
        group=_GENERAL,
        usage="Development mode: a throw-away key, and :3340 in place of -a.",
    )
    key_path: Path | None = option(
        "c",
        STRING,
        "",
        checks.path,
        group=_GENERAL,
        variable="DERP_KEY_FILE",
        placeholder="FILE",
        usage="Key file, in the JSON of the Go derper; made if it does not exist. "
        "Required unless run by root or with -dev.",
    )
    """None in development mode only."""
    derp: bool = option(
        "derp",
        BOOL,
        "true",
        bool,
        group=_GENERAL,
        usage="Relay packets. Without it, only STUN and the pages are served.",
    )
    addr: Address = option(
        "a",
        STRING,
        ":443",
        checks.address,
        group=_LISTENING,
        variable="DERP_ADDR",
        placeholder="ADDRESS",
        usage="Where to serve: :port for all interfaces, ip:port or [ip6]:port. "
        "It is HTTPS if the port is 443, -certmode is manual or -acme-directory is given, "
        "and HTTP otherwise.",
    )
    http_port: int = option(
        "http-port",
        INT,
        "80",
        checks.port(-1),
        group=_LISTENING,
        variable="DERP_HTTP_PORT",
        placeholder="PORT",
        want=checks.port_want(-1),
        usage="Port for plain HTTP beside HTTPS, on the IP address of -a; -1 for none.",
    )
    """-1 for none. Of no account unless `serve_tls`."""
    stun: bool = option(
        "stun",
        BOOL,
        "true",
        bool,
        group=_LISTENING,
        variable="DERP_STUN",
        usage="Answer STUN.",
    )
    stun_addr: str = option(
        "stun-addr",
        STRING,
        "",
        checks.stun_host,
        group=_LISTENING,
        variable="DERP_STUN_ADDR",
        placeholder="HOST",
        usage="IP address for STUN if it is not that of -a, without a port; * for all.",
    )
    """Without brackets; empty for that of -a. See `stun_host`."""
    stun_port: int = option(
        "stun-port",
        INT,
        "3478",
        checks.port(0),
        group=_LISTENING,
        variable="DERP_STUN_PORT",
        placeholder="PORT",
        want=checks.port_want(0),
        usage="UDP port for STUN.",
    )
    home: str = option(
        "home",
        STRING,
        "",
        checks.home,
        group=_WEB,
        placeholder="WHAT",
        usage="What / serves: blank for an empty page, a URL to redirect to, "
        "or a short page about DERP if not given.",
    )
    bootstrap_dns_names: tuple[Name, ...] = option(
        "bootstrap-dns-names",
        STRING,
        "",
        checks.bootstrap_names,
        group=_WEB,
        placeholder="NAMES",
        usage="Names, with commas between them, whose addresses /bootstrap-dns lists.",
    )
    unpublished_bootstrap_dns_names: tuple[Name, ...] = option(
        "unpublished-bootstrap-dns-names",
        STRING,
        "",
        checks.bootstrap_names,
        group=_WEB,
        placeholder="NAMES",
        usage="Names, with commas between them, whose addresses /bootstrap-dns tells only to those "
        "who ask for them; name/txt-name tells them to as many percent of clients "
        "as the TXT record of txt-name says.",
    )
    accept_connection_limit: float = option(
        "accept-connection-limit",
        FLOAT,
        "+Inf",
        checks.accept_limit,
        group=LIMITS,
        default_words="no limit",
        want=checks.ACCEPT_LIMIT_WANT,
        usage="New connections a second; those above it are closed at once.",
    )
    """Connections a second; infinite for no limit."""
    accept_connection_burst: int = option(
        "accept-connection-burst",
        INT,
        "9223372036854775807",
        checks.accept_burst,
        group=LIMITS,
        default_words="no limit",
        usage="New connections at once, before -accept-connection-limit counts.",
    )
    rate_config: Path | None = option(
        "rate-config",
        STRING,
        "",
        checks.path,
        group=LIMITS,
        placeholder="FILE",
        usage="JSON file with PerClientRateLimitBytesPerSec and PerClientRateBurstBytes; "
        "read again at SIGHUP.",
    )
    queue_memory: MemorySize = option(
        "queue-memory",
        STRING,
        "auto",
        memory_size,
        group=LIMITS,
        variable="DERP_QUEUE_MEMORY",
        placeholder="SIZE",
        usage="Memory for what waits for all clients and relays together, such as 64MiB, or 10% "
        "of what there is. Above that, packets are dropped where most of them wait. "
        "auto is 10%, but at most 64MiB; 0 is no bound.",
    )
    workers: int = option(
        "workers",
        STRING,
        "1",
        checks.workers,
        group=LIMITS,
        variable="DERP_WORKERS",
        placeholder="N",
        usage="Processes that share the ports and the work, one for each core to be used; "
        "auto is one for each there is.",
    )
    """0 for one per core."""
    drain_time: float = option(
        "drain-time",
        DURATION,
        "0s",
        checks.seconds(86400.0, "24h"),
        group=LIMITS,
        variable="DERP_DRAIN_TIME",
        usage="Time over which connections are ended, one by one, when the relay is told to stop; "
        "0 ends all at once.",
    )
    tcp_keepalive_time: float = option(
        "tcp-keepalive-time",
        DURATION,
        "10m",
        checks.seconds(32767.0, "9h6m7s"),
        group=_TCP,
        usage="Quiet time after which TCP asks whether a client is still there; 0 for never.",
    )
    """At most what TCP_KEEPIDLE takes."""
    tcp_user_timeout: float = option(
        "tcp-user-timeout",
        DURATION,
        "15s",
        checks.seconds(2147483.647, "596h31m23.647s"),
        group=_TCP,
        usage="How long sent data may go unacknowledged; 0 leaves it to the kernel.",
    )
    """At most what TCP_USER_TIMEOUT takes, which counts milliseconds."""
    tcp_write_timeout: float = option(
        "tcp-write-timeout",
        DURATION,
        "2s",
        checks.seconds(math.inf, "292 years"),
        group=_TCP,
        usage="How long a client may take nothing of what waits for it; 0 for ever.",
    )

    def __attrs_post_init__(self) -> None:
        """Check the rules that concern more than one field."""
        if self.key_path is None and not self.dev:
            raise ConfigError(
                "c", "", "want the path of the key file; only root and -dev need none"
            )
        burst = self.accept_connection_burst
        if burst == 0 and math.isfinite(self.accept_connection_limit):
            want = "with -accept-connection-limit nothing would be accepted; want 1 or more"
            raise ConfigError("accept-connection-burst", burst, want)
        self.check_verification()
        self.check_mesh(derp=self.derp, dev=self.dev)
        if not self.serve_tls:
            return
        self.check_certificates()
        if self.http_port == self.addr.port != 0:
            want = "the port of -a; want another one, or -1 for none"
            raise ConfigError("http-port", self.http_port, want)

    @property
    def serve_tls(self) -> bool:
        """HTTPS, not HTTP. Matches tsweb.IsProd443 and what cmd/derper makes of it.

        Whoever names an ACME server wants HTTPS, whatever the port; the Go derper has no such flag.
        """
        return self.addr.port == 443 or self.certmode == "manual" or self.acme_directory != ""

    @property
    def stun_host(self) -> str:
        """Where STUN is answered: an IP address, a name, or the empty host for all interfaces."""
        if not self.stun_addr:
            return self.addr.host
        return "" if self.stun_addr == checks.ANY_HOST else self.stun_addr

    @property
    def serve_acme(self) -> bool:
        """HTTPS with certificates by ACME."""
        return self.serve_tls and self.certmode in ACME_MODES

    @property
    def hostname_is_ip(self) -> bool:
        """The hostname is an IP address, so that no client names it in its SNI."""
        return is_ip(self.hostname)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Setting]) -> "Config":
        """Make the configuration of parsed flags and variables.

        Raises UsageError, in the operator's words.
        """
        for setting in settings.values():
            flag = setting.flag
            if flag.refusal and setting.value != flag.default_value:
                raise UsageError(f"{setting.source}: {flag.refusal}")
        fields = {field.name: settings[flag_of(field).name] for field in attrs.fields(cls)}
        chosen: dict[str, Any] = {name: setting.value for name, setting in fields.items()}
        chosen["key_path"] = chosen["key_path"] or fields["key_path"].flag.default
        if chosen["dev"]:
            chosen |= {"addr": _DEV_ADDRESS, "key_path": None}
        try:
            return cls(**chosen)
        except ConfigError as error:
            raise settings[error.flag].wrong(error.want) from None


def flag_table(environ: Mapping[str, str], *, root: bool) -> list[Flag]:
    """List every flag of the Go derper, with the defaults that it has for this user.

    `root`: the program is run by root, who alone has a default for -c.
    """
    home = environ.get("HOME", "")
    defaults = {
        "c": _ROOT_KEY_PATH if root else "",
        "certdir": _default_certdir(environ),
        "secrets-cache-dir": str(Path(home, ".cache", "derper-secrets")),
    }
    version = Flag(
        name="version",
        kind=BOOL,
        default="false",
        group=_GENERAL,
        usage="Print the version and exit.",
    )
    flags = [flag_of(field) for field in attrs.fields(Config)]
    flags.sort(key=lambda flag: _GROUPS.index(flag.group))
    return [
        attrs.evolve(flag, default=defaults.get(flag.name, flag.default))
        for flag in [flags[0], version, *flags[1:], *REFUSED]
    ]


def _default_certdir(environ: Mapping[str, str]) -> str:
    """Name the user's cache directory; none if there is none. Matches tsweb.DefaultCertDir."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if cache and not Path(cache).is_absolute():
        return ""
    if not cache:
        home = environ.get("HOME", "")
        if not home:
            return ""
        cache = f"{home}/.cache"
    return str(Path(cache, "tailscale", "derper-certs"))
