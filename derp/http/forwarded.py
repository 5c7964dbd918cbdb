"""The client of a request that has come through proxies, by the headers that they add. Sans-I/O.

    X-Forwarded-For: 192.0.2.7, 10.0.0.5
    X-Real-IP: 192.0.2.7
    Forwarded: for="[2001:db8::7]:4711";proto=https, for=10.0.0.5      (RFC 7239)

Each proxy adds the address of its own peer at the right; what is left of that came with the
request, and a client may have made it up. So the client is the right-most address that is not a
proxy's. Which of the three a proxy sets is not known, and the others may be the client's own: where
they name different clients, or one names none that can be read, none is believed. A header without
any address but proxies' says no more than none.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from derp.http.message import BadRequest
from derp.net.address import Endpoint

MAX_COMMAS: Final = 32
"""Bounds the part of each header, from the right, that is looked at."""
MAX_PAIRS: Final = 16
"""Bounds the pairs of an element of Forwarded; RFC 7239 has four."""

_FORWARDED: Final = b"forwarded"
HEADERS: Final = {
    _FORWARDED: "Forwarded",
    b"x-forwarded-for": "X-Forwarded-For",
    b"x-real-ip": "X-Real-IP",
}
"""The names of the headers, in lower case and as they are written."""

_WITH_PORT: Final = re.compile(
    r"(?:\[(?P<ip6>[^\]]*)\]|(?P<ip4>[0-9.]+))(?::(?:(?P<port>[0-9]{1,5})|_[\w.-]+))?", re.ASCII
)
"""A node of RFC 7239, section 6, that is an address; a port may be obfuscated."""

_PAIR: Final = re.compile(
    r"""[ \t]*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)="""
    r"""(?:([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]++)|"([^"\\]*+)")[ \t]*+(;|\Z)"""
)
"""A pair of RFC 7239, section 4, and the semicolon after it.

Besides, a value may have colons and brackets without quotation, as some proxies write addresses. It
can't have a quoted-pair (a backslash), which not all proxies make of a client's quotation mark.
"""


def client(
    headers: Sequence[tuple[bytes, bytes]], is_proxy: Callable[[str], bool]
) -> Endpoint | None:
    """Return the client that a proxy's request is for; None for the proxy itself.

    That is so where no header has an address that is not a proxy's, which `is_proxy` tells. The
    port is 0 unless one header alone names the client, with a port: of two, a client may have sent
    the other. Raises BadRequest (400) where a header can't be read, or they name different clients.
    """
    lists: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in HEADERS:
            lists.setdefault(name, []).append(value)
    found: dict[bytes, Endpoint] = {}
    for name, values in lists.items():
        nodes = _elements(b",".join(values).decode("latin-1"))
        if name == _FORWARDED:
            nodes = map(_node, nodes)
        try:
            if (node := _right_most(nodes, is_proxy)) is not None:
                found[name] = node
        except ValueError:
            raise BadRequest(
                400,
                f"{HEADERS[name]} names no client that can be read; the proxy has to set it to "
                f"the client's address, or to remove it",
            ) from None
    if len({node.host for node in found.values()}) > 1:
        names = " and ".join(HEADERS[name] for name in found)
        raise BadRequest(
            400,
            f"{names} name different clients; -trusted-proxies has to have all proxies, and "
            f"these to remove what they do not set",
        )
    node = next(iter(found.values()), None)
    return node if node is None or len(lists) == 1 else Endpoint(node.host, 0)


def _right_most(nodes: Iterator[str], is_proxy: Callable[[str], bool]) -> Endpoint | None:
    """Return the first node that is no proxy; None if all are. Raises ValueError for no address."""
    for text in nodes:
        node = _parse(text)
        if not is_proxy(node.host):
            return node
    return None


def _elements(value: str) -> Iterator[str]:
    """Yield the elements of a list that are not empty, from the right.

    From the right, as an unfinished quotation of the client's must not hide what a proxy has added.
    Raises ValueError for one without a beginning, and after MAX_COMMAS.
    """
    end = start = len(value)
    quotes = 0
    for _ in range(MAX_COMMAS):
        comma = value.rfind(",", 0, start)
        quotes += value.count('"', comma + 1, start)
        start = comma
        if quotes % 2 == 0:
            if element := value[start + 1 : end].strip():
                yield element
            end = start
        if start < 0:
            break
    if end >= 0:
        raise ValueError


def _node(element: str) -> str:
    """Return the `for` of an element of Forwarded.

    Raises ValueError where it has none or two, or is not of the RFC's form: the values of `host`
    and `proto` are the client's, and must not be taken for pairs.
    """
    found: list[str] = []
    end = 0
    for _ in range(MAX_PAIRS):
        if (pair := _PAIR.match(element, end)) is None:
            raise ValueError
        name, value, quoted, separator = pair.groups()
        if name.lower() == "for":
            found.append(quoted if value is None else value)
        if not separator:
            (node,) = found
            return node
        end = pair.end()
    raise ValueError


def _parse(text: str) -> Endpoint:
    """Parse an address, maybe with a port. Raises ValueError."""
    host, port = text, 0
    if match := _WITH_PORT.fullmatch(text):
        host, port = match["ip6"] or match["ip4"] or "", int(match["port"] or 0)
    address = ipaddress.ip_address(host.partition("%")[0])
    if port > 65535:
        raise ValueError
    if isinstance(address, ipaddress.IPv6Address):
        return Endpoint(str(address.ipv4_mapped or address), port)
    return Endpoint(str(address), port)
