"""One check for each sort of configured value.

A check takes the value from a flag or from code, and returns it in the form that the rest of the
program uses. It raises ValueError, whose message begins with "want" and says what would be right.
Forms and ranges are the Go derper's, without the values that it accepts but can't use.
"""

import base64
import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from certs.hostname import IPAddress, is_wildcard, parse_ip
from derp.config.addresses import MAX_UNIX_PATH, fits_unix
from derp.config.strconv import quoted
from derp.http.bootstrap_dns import Name, parse_names
from derp.net.address import is_dns_name, is_ip
from derp.relay.networks import UNIX, Network, PeerNetwork, unmapped


def control_socket(value: str | Path) -> str:
    """Check the path of the control socket: `auto`, or empty, also for `none`, or absolute."""
    path = str(value)
    if path in {"", "none"}:
        return ""
    if path != "auto" and not fits_unix(path):
        raise ValueError(f"want an absolute path of at most {MAX_UNIX_PATH} bytes, auto or none")
    return path


_ALGORITHM: Final = re.compile(r"[\w.-]{1,15}", re.ASCII)


def congestion_control(value: str) -> str:
    """Check the name of an algorithm of TCP, of up to 15 characters; empty for the default."""
    if value and not _ALGORITHM.fullmatch(value):
        raise ValueError("want the name of a congestion control of this kernel, such as bbr")
    return value


_INTERFACE: Final = re.compile(r"[^\s/:%]{1,15}")


def interface(value: str) -> str:
    """Check the name of a network interface, of up to 15 characters; empty for none."""
    if value and (not _INTERFACE.fullmatch(value) or value in {".", ".."}):
        raise ValueError("want the name of a network interface of this machine, such as eth0")
    return value


FWMARK_WANT: Final = "want a mark from 1 to 0xffffffff, or 0 for none"


def fwmark(value: int) -> int:
    """Check a firewall mark of 32 bits; 0 for none."""
    if not 0 <= value < 1 << 32:
        raise ValueError(FWMARK_WANT)
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


HIDDEN: Final = "hidden"


def home_page(value: str) -> str:
    """Check what / serves: a page of ours if empty, `blank`, HIDDEN, or a URL to redirect to."""
    if value not in {"", "blank", HIDDEN} and not is_url(value):
        raise ValueError("want blank, hidden, or a URL that begins with http:// or https://")
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
            return unmapped(ipaddress.ip_network(text, strict=False))
        except ValueError:
            pass
    raise ValueError(f"want a network such as 10.0.0.0/8 in place of {quoted(text)}")


def proxy_list(value: str | Iterable[PeerNetwork]) -> tuple[PeerNetwork, ...]:
    """Check a list as `network_list` does, which may have UNIX for proxies at a unix socket.

    No network may have all addresses, so strangers'.
    """
    given = map(str.strip, value.split(",")) if isinstance(value, str) else value
    networks: dict[PeerNetwork, None] = {}
    for entry in given:
        if entry == UNIX:
            networks[UNIX] = None
        else:
            networks |= dict.fromkeys(network_list(entry if isinstance(entry, str) else (entry,)))
    for network in networks:
        if network != UNIX and network.prefixlen == 0:
            raise ValueError(
                f"want the addresses of your proxies alone, such as 10.0.0.5/32, in place of "
                f"{network}: all that connect from there are believed"
            )
    return tuple(networks)


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
