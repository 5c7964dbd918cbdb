"""One check for each sort of configured value.

A check takes the value from a flag or from code, and returns it in the form that the rest of the
program uses. It raises ValueError, whose message begins with "want" and says what would be right.
Forms and ranges are the Go derper's, without the values that it accepts but can't use.
"""

import base64
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from certs.hostname import IPAddress, is_wildcard, parse_ip
from derp.config.strconv import shown
from derp.http.bootstrap_dns import Name, parse_names
from derp.net.address import host_port, is_dns_name, is_ip
from derp.relay.networks import Network


@attrs.frozen
class Address:
    """Where to listen: one IP address or host name, or the empty host for all interfaces."""

    host: str
    """Without brackets."""
    port: int
    """0 for any free port."""

    def __str__(self) -> str:
        return host_port(self.host, self.port)


_ADDRESS: Final = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^:\[\]]*))"
    r":(?P<port>0|[1-9][0-9]{0,4}|https?)",
    re.ASCII,
)
_NAMED_PORTS: Final = {"http": 80, "https": 443}


def listen_address(value: str | Address) -> Address:
    """Check a listening address: `:port`, `ip:port`, `[ip6]:port` or `name:port`.

    The port may be `http` or `https`. A name is resolved when it is bound.
    """
    want = "want :port, ip:port or [ip6]:port, with a port from 0 to 65535"
    if isinstance(value, Address):
        return value
    match = _ADDRESS.fullmatch(value)
    if match is None:
        raise ValueError(want)
    port = _NAMED_PORTS[match["port"]] if match["port"] in _NAMED_PORTS else int(match["port"])
    ip6, host = match["ip6"], match["host"]
    if ip6 is not None:
        fits = ":" in ip6 and is_ip(ip6)
    else:
        fits = not host or is_dns_name(host) or is_ip(host)
    if port > 65535 or not fits:
        raise ValueError(want)
    return Address(ip6 or host or "", port)


_UNIX: Final = "unix:"
_MAX_UNIX_PATH: Final = 107
"""Bytes in the path of a unix socket (unix(7), less the final zero)."""


def metrics_address(value: str | Address | Path | None) -> Address | Path | None:
    """Check an address as of -a, or `unix:/path`, which becomes a path; None for none."""
    if not value or isinstance(value, Address):
        return value or None
    if isinstance(value, str) and not value.startswith(_UNIX):
        try:
            return listen_address(value)
        except ValueError as error:
            raise ValueError(f"{error}, or unix:/path") from None
    path = Path(str(value).removeprefix(_UNIX))
    if not _fits_unix(path):
        raise ValueError(f"want unix: and an absolute path of at most {_MAX_UNIX_PATH} bytes")
    return path


def control_socket(value: str | Path) -> str:
    """Check the path of the control socket: `auto`, or empty, also for `none`, or absolute."""
    path = str(value)
    if path in {"", "none"}:
        return ""
    if path != "auto" and not _fits_unix(Path(path)):
        raise ValueError(f"want an absolute path of at most {_MAX_UNIX_PATH} bytes, auto or none")
    return path


def _fits_unix(path: Path) -> bool:
    return path.is_absolute() and "\0" not in str(path) and len(os.fsencode(path)) <= _MAX_UNIX_PATH


ANY_HOST: Final = "*"


def listen_host(value: str) -> str:
    """Check a host to listen on: an IP address, a name, ANY_HOST, or empty for that of -a."""
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    fits = is_ip(host) or (host == value and is_dns_name(host))
    if not (fits or value in {"", ANY_HOST}):
        raise ValueError("want an IP address or a name without a port, or * for all addresses")
    return host


_ALGORITHM: Final = re.compile(r"[\w.-]{1,15}", re.ASCII)


def congestion_control(value: str) -> str:
    """Check the name of an algorithm of TCP, of up to 15 characters; empty for the default."""
    if value and not _ALGORITHM.fullmatch(value):
        raise ValueError("want the name of a congestion control of this kernel, such as bbr")
    return value


def port_from(lowest: int) -> Callable[[int], int]:
    """Return a check for a port from `lowest` to 65535."""

    def check(value: int) -> int:
        if not lowest <= value <= 65535:
            raise ValueError(port_want(lowest))
        return value

    return check


def port_want(lowest: int) -> str:
    """Return the message of `port_from(lowest)`."""
    return f"want a port from {lowest} to 65535"


def optional_path(value: str | Path | None) -> Path | None:
    """Return None for the empty string, and a path for any other."""
    return Path(value) if value else None


TAILSCALED_SOCKET: Final = Path("/var/run/tailscale/tailscaled.sock")


PATHS_JOINER: Final = "\n"
_BETWEEN_PATHS: Final = re.compile(rf"{PATHS_JOINER}|,(?=/)")


def socket_paths(value: str | Path | Iterable[Path]) -> tuple[Path, ...]:
    """Check a list of sockets, tailscaled's default if it is empty.

    In a string, PATHS_JOINER separates them, or a comma before a slash, as few names have one.
    """
    if isinstance(value, Path):
        return (value,)
    given = _BETWEEN_PATHS.split(value) if isinstance(value, str) else value
    found = dict.fromkeys(Path(each) for each in given if each)
    return tuple(found) or (TAILSCALED_SOCKET,)


def http_urls(value: str | Iterable[str]) -> tuple[str, ...]:
    """Check a list of URLs; in a string, spaces separate them, not commas."""
    found = tuple(value.split()) if isinstance(value, str) else tuple(value)
    if not all(is_url(url) and ",http" not in url for url in found):
        raise ValueError("want a URL that begins with http:// or https://")
    return tuple(dict.fromkeys(found))


def header_value(value: str) -> str:
    """Check the value of an HTTP header; empty for none."""
    if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", value):
        raise ValueError("want the value of a header, in ASCII and without spaces around it")
    return value


def certificate_mode(value: str) -> str:
    """Check where certificates come from: `manual`, `letsencrypt` or `gcp`."""
    if value not in {"manual", "letsencrypt", "gcp"}:
        raise ValueError("want manual, letsencrypt or gcp")
    return value


MAX_HOSTNAMES: Final = 100
"""As many as Let's Encrypt puts into a certificate."""


def certificate_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Check the names for a certificate; in a string, commas separate them.

    Each is a DNS name, or a wildcard such as `*.example.com`; or the only one is an IP address,
    without brackets and zone.
    """
    names = [part.strip(" ") for part in value.split(",")] if isinstance(value, str) else [*value]
    for name in names:
        address = is_ip(name) and "%" not in name
        if not (address or is_dns_name(name.removeprefix("*.") if is_wildcard(name) else name)):
            raise ValueError(
                "want DNS names in ASCII with commas between them, "
                "or an IP address without brackets"
            )
        if address and len(names) > 1:
            raise ValueError(
                "an address stands alone; want names only, and addresses in -acme-ip-addresses"
            )
    if len(names) > MAX_HOSTNAMES:
        raise ValueError(f"want at most {MAX_HOSTNAMES} names, which a certificate can have")
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower(), name)
    return tuple(found.values())


def directory_url(value: str) -> str:
    """Check the URL of an ACME server's directory; empty for none."""
    if value and not (is_url(value) and value.startswith("https://") and "@" not in value):
        raise ValueError("want the URL of an ACME directory, which begins with https://")
    return value


def email_address(value: str) -> str:
    """Check the email address to which an ACME server sends notices; empty for none."""
    if value and not re.fullmatch(r"[^\s@,<>:?]+@[^\s@,<>:?]+", value):
        raise ValueError("want one email address, such as ops@example.com")
    return value


def account_key_id(value: str) -> str:
    """Check the key ID of an external account; empty for none."""
    if not re.fullmatch(r"[!-~]*", value):
        raise ValueError("want the key ID as the certificate authority gave it")
    return value


def mac_key(value: str | bytes) -> bytes:
    """Decode the key of an external account, from base64url or base64; empty for none."""
    if isinstance(value, bytes):
        return value
    digits = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        want = "want the HMAC key in base64, as the certificate authority gave it"
        raise ValueError(want) from None


def ip_addresses(value: str | Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """Check a list of IP addresses; in a string, commas separate them."""
    if not isinstance(value, str):
        return tuple(value)
    found = [parse_ip(part.strip()) for part in value.split(",")] if value else []
    known = [address for address in found if address is not None]
    if len(known) < len(found):
        raise ValueError("want IP addresses without brackets, with commas between them")
    return tuple(dict.fromkeys(known))


def home_page(value: str) -> str:
    """Check what / serves: empty for the built-in page, `blank`, or a URL to redirect to."""
    if value not in {"", "blank"} and not is_url(value):
        raise ValueError("want blank, or a URL that begins with http:// or https://")
    return value


def is_url(text: str) -> bool:
    """Return whether a text is an http or https URL."""
    if not re.fullmatch(r"https?://[!-~]+", text):
        return False
    try:
        url = urlsplit(text)
        return bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return False


def bootstrap_names(value: str | Iterable[Name]) -> tuple[Name, ...]:
    """Check a list of `name` or `name/txt-name`; in a string, commas separate them."""
    if not isinstance(value, str):
        return tuple(value)
    try:
        return parse_names(value)
    except ValueError:
        raise ValueError("want name or name/txt-name, with commas between them") from None


_PREFIX: Final = re.compile(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", re.ASCII)


def network_list(value: str | Iterable[Network]) -> tuple[Network, ...]:
    """Check a list of IP prefixes, `address/bits`; in a string, commas separate them."""
    if not isinstance(value, str):
        return tuple(value)
    entries = [entry for part in value.split(",") if (entry := part.strip())]
    return tuple(dict.fromkeys(map(_network, entries)))


def _network(text: str) -> Network:
    if _PREFIX.fullmatch(text):
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            pass
    raise ValueError(f"want a network such as 10.0.0.0/8 in place of {shown(text)}")


MAX_WORKERS: Final = 256
ACCEPT_LIMIT_WANT: Final = "want a number above 0, or +Inf for no limit"


def accept_limit(value: float) -> float:
    """Check a number of new connections a second; infinite for no limit."""
    if not value > 0:
        raise ValueError(ACCEPT_LIMIT_WANT)
    return float(value)


def accept_burst(value: int) -> int:
    """Check a number of new connections at once, the burst of a token bucket."""
    if value < 0:
        raise ValueError("want a whole number, 0 or more")
    return value


def count_or_unlimited(value: int) -> int:
    """Check a limit; 0 for no limit."""
    if value < 0:
        raise ValueError("want a whole number, or 0 for no limit")
    return value


MAX_KEYS: Final = 1000
KEY_COUNT_WANT: Final = f"want a number of keys from 0 to {MAX_KEYS}"


def key_count(value: int) -> int:
    """Check a number of keys, each of which makes a page longer."""
    if not 0 <= value <= MAX_KEYS:
        raise ValueError(KEY_COUNT_WANT)
    return value


def worker_count(value: str | int) -> int:
    """Check a number of workers; 0 for `auto`."""
    if value == "auto":
        return 0
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"want a number from 1 to {MAX_WORKERS}, or auto for one per core")
    return int(text)


def duration_up_to(limit: float, limit_text: str) -> Callable[[float], float]:
    """Return a check for a duration from 0 to `limit` seconds, `limit_text` in messages."""

    def check(value: float) -> float:
        if not 0 <= value <= limit:
            raise ValueError(f"want a duration from 0 to {limit_text}")
        return float(value)

    return check


def repeat_interval(value: float) -> float:
    """Check an interval in seconds; 0 for never."""
    if value != 0 and not 0.1 <= value < math.inf:
        raise ValueError("want 0 for never, or at least 100ms")
    return float(value)
