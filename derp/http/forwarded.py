"""The client of a request that has come through proxies, by the headers that they add. Sans-I/O.

    X-Forwarded-For: 192.0.2.7, 10.0.0.5
    X-Real-IP: 192.0.2.7
    Forwarded: for="[2001:db8::7]:4711";proto=https, for=10.0.0.5      (RFC 7239)

Each proxy adds the address of its own peer at the right; what is left of that came with the
request, and a client may have made it up. So the client is the right-most address that is not a
proxy's. Which of the three a proxy sets is not known, and the others may be the client's own: where
they name different clients, none is believed.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from derp.http.message import BadRequest
from derp.net.address import Endpoint

MAX_COMMAS: Final = 32
"""Bounds the part of each header, from the right, that is looked at."""

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


def client(
    headers: Sequence[tuple[bytes, bytes]], is_proxy: Callable[[str], bool]
) -> Endpoint | None:
    """Return the client that a proxy's request is for; None where the headers don't say.

    The port is 0 where they have none. `is_proxy` tells whether an address is that of a proxy.
    Raises BadRequest (400) where the headers name different clients.
    """
    lists: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in HEADERS:
            lists.setdefault(name, []).append(value)
    found: dict[bytes, Endpoint | None] = {}
    for name, values in lists.items():
        nodes = _elements(b",".join(values).decode("latin-1"))
        if name == _FORWARDED:
            nodes = map(_node, nodes)
        try:
            if (node := _right_most(nodes, is_proxy)) is not None:
                found[name] = node
        except ValueError:
            found[name] = None
    if len({None if node is None else node.host for node in found.values()}) > 1:
        names = " and ".join(HEADERS[name] for name in found)
        raise BadRequest(
            400,
            f"{names} name different clients; -trusted-proxies has to have all proxies, and "
            f"these to remove what they do not set",
        )
    nodes_found = [node for node in found.values() if node is not None]
    return next((node for node in nodes_found if node.port), next(iter(nodes_found), None))


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
    """Return the `for` of an element of Forwarded; empty for none."""
    pairs = (pair.partition("=") for pair in element.split(";"))
    found = (node for name, _, node in pairs if name.strip().lower() == "for")
    return next(found, "").strip().strip('"')


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
