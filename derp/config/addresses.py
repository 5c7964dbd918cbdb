"""Addresses to listen on, as an operator writes them. Sans-I/O.

    -a, -metrics-addr    :443   192.0.2.1:443   [2001:db8::1]:443   [fe80::1%eth0]:443   name:443
                         ipv4@:443   ipv6@:443   unix:/run/derper.sock,mode=0660,group=www-data
    -stun-addr           192.0.2.1   192.0.2.1:3479   2001:db8::1   [2001:db8::1]:3479   *

Commas separate addresses. What follows a unix socket's path and has an equals sign belongs to that
socket: mode, user and group, as in socat and HAProxy. So do ipv4@ and ipv6@, for one IP version:
as with Go's net.Listen, a wildcard of either version, `0.0.0.0` or `[::]`, stands for both.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

from derp.config.strconv import quoted
from derp.net.address import is_dns_name, is_ip
from derp.net.listenaddress import Address, ListenAddress, UnixSocket, first_overlap

_VERSION: Final = re.compile(r"ipv([46])@")
_HOST_AND_PORT: Final = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^:\[\]]*))"
    r":(?P<port>0|[1-9][0-9]{0,4}|https?)",
    re.ASCII,
)
_NAMED_PORTS: Final = {"http": 80, "https": 443}
_WANT: Final = "want :port, ip:port or [ip6]:port, with a port from 0 to 65535, or unix:/path"

_UNIX: Final = "unix:"
MAX_UNIX_PATH: Final = 107
"""Bytes in the path of a unix socket (unix(7), less the final zero)."""
_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[\w.$-]{1,64}")

ANY_HOST: Final = "*"
_STUN_WANT: Final = (
    "want an IP address or a name, with a port where it is not that of -stun-port, "
    "or * for all addresses"
)

T = TypeVar("T")


@attrs.frozen
class StunAddress:
    """An address to answer STUN at; `port` is None for that of -stun-port."""

    host: str
    """Empty for all addresses."""
    port: int | None = None
    version: int = 0
    """As Address has it."""

    def at(self, port: int) -> Address:
        """Return the address, with `port` for that of -stun-port."""
        return Address(self.host, port if self.port is None else self.port, self.version)


def listen_addresses(
    value: str | ListenAddress | Iterable[ListenAddress],
) -> tuple[ListenAddress, ...]:
    """Check addresses to listen on; in a string, commas separate them. At least one.

    A port may be `http` or `https`. A name is resolved when it is bound.
    """
    if isinstance(value, Address | UnixSocket):
        return (value,)
    found = _each(_with_options(value), _listen_address) if isinstance(value, str) else list(value)
    check_apart(found)
    return tuple(found)


def check_apart(addresses: Sequence[ListenAddress]) -> None:
    """Check that no two addresses overlap. Raises ValueError."""
    if (found := first_overlap(addresses)) is not None:
        address, earlier = found
        raise ValueError(f"want {address} or {earlier}, not both: they overlap")


def optional_addresses(
    value: str | ListenAddress | Iterable[ListenAddress],
) -> tuple[ListenAddress, ...]:
    """Check addresses as `listen_addresses` does; none for the empty string."""
    return () if value == "" else listen_addresses(value)


def stun_addresses(value: str | Iterable[StunAddress]) -> tuple[StunAddress, ...]:
    """Check addresses for STUN; in a string, commas separate them. None for those of -a."""
    if not isinstance(value, str):
        return tuple(value)
    return tuple(_each(value.split(","), _stun_address)) if value else ()


def _each(entries: Sequence[str], check: Callable[[str], T]) -> list[T]:
    if len(entries) == 1:
        return [check(entries[0])]
    found = []
    for entry in map(str.strip, entries):
        try:
            found.append(check(entry))
        except ValueError as error:
            raise ValueError(f"{error}, in place of {quoted(entry)}") from None
    return found


def _with_options(text: str) -> list[str]:
    """Split at commas, but not before the options of a unix socket."""
    entries: list[str] = []
    for part in text.split(","):
        if "=" in part and entries and entries[-1].lstrip().startswith(_UNIX):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return entries


def _listen_address(text: str) -> ListenAddress:
    if text.startswith(_UNIX):
        return _unix_socket(text.removeprefix(_UNIX))
    match = _VERSION.match(text)
    version = int(match[1]) if match else 0
    host, port = _host_and_port(text[match.end() :] if match else text, _WANT)
    return Address(host, port, _fitting(version, host))


def _host_and_port(text: str, want: str) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(text)
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
    return ip6 or host or "", port


def _fitting(version: int, host: str) -> int:
    """Return the version; raise ValueError if the host is an address of the other one."""
    if not is_ip(host):
        return version
    address = ipaddress.ip_address(host)
    if version and address.version != version:
        raise ValueError(f"want an IPv{version} address after ipv{version}@")
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local and "%" not in host:
        raise ValueError(f"want the interface of a link-local address: {host}%eth0")
    return version


def _unix_socket(text: str) -> UnixSocket:
    name, *options = text.split(",")
    if not fits_unix(name):
        raise ValueError(f"want unix: and an absolute path of at most {MAX_UNIX_PATH} bytes")
    given = dict(option.strip().partition("=")[::2] for option in options)
    mode = given.pop("mode", "600")
    accounts = given.pop("user", ""), given.pop("group", "")
    if given or not _MODE.fullmatch(mode) or not all(_is_account(name) for name in accounts):
        raise ValueError("want mode=0660, user=NAME and group=NAME after the path of a unix socket")
    return UnixSocket(Path(name), int(mode, 8), *accounts)


def fits_unix(path: str) -> bool:
    """Return whether a unix socket may have this path, which is absolute."""
    size = len(path.encode(errors="surrogateescape"))
    return Path(path).is_absolute() and path.isprintable() and size <= MAX_UNIX_PATH


def _is_account(name: str) -> bool:
    return not name or _ACCOUNT.fullmatch(name) is not None


def _stun_address(text: str) -> StunAddress:
    if text.startswith(_UNIX):
        raise ValueError(
            "want an IP address: STUN tells clients theirs, and unix sockets have none"
        )
    match = _VERSION.match(text)
    version, where = (int(match[1]), text[match.end() :]) if match else (0, text)
    bracketed = where[1:-1] if where.startswith("[") and where.endswith("]") else ""
    host, port = bracketed or where, None
    if where == ANY_HOST:
        host = ""
    elif not (is_ip(host) or is_dns_name(where)):
        host, port = _host_and_port(where.replace(f"{ANY_HOST}:", ":", 1), _STUN_WANT)
    return StunAddress(host, port, _fitting(version, host))
