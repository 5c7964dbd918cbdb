"""Request lines, targets, hosts and header fields as nginx reads them. Sans-I/O.

nginx refuses at the first byte with which a line can't go on. So each pattern matches all
beginnings of a line, too: what comes behind a match is wrong, and a match up to the end of the
input may go on.

After ngx_http_parse_request_line, ngx_http_parse_complex_uri and ngx_http_parse_header_line
(ngx_http_parse.c), and ngx_http_validate_host (ngx_http_request.c).
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

from derp.errors import HTTPFailed

HTTP_09: Final = 9
HTTP_10: Final = 1000
HTTP_11: Final = 1001
"""Versions as nginx counts them: 1000 for the major number, 1 for the minor one."""

_NOT_SUPPORTED: Final = re.compile(rb"HTTP/(?:[2-9]|1[0-9])")


def _beginnings(*parts: bytes) -> bytes:
    """Return a pattern for all parts in a row, or for as many of them as there are."""
    pattern = b""
    for part in reversed(parts):
        pattern = b"(?:" + part + pattern + b")?"
    return pattern


_LINE_END: Final = rb"(?:\r\n?|\n)"
_VISIBLE: Final = rb"[^\x00-\x20\x7f]*"
_LITERAL: Final = rb"\[[0-9A-Za-z:.\-_~!$&'()*+,;=]*"
_NAME: Final = rb"[0-9A-Za-z.\-]*"
_MINOR: Final = rb"(?=[0-9])0*[0-9]{0,3}"
_VERSION: Final = _beginnings(
    *(rb"H", rb"T", rb"T", rb"P", rb"/", rb"1", rb"\.", _MINOR, rb"\x20*", _LINE_END)
)
_AFTER_HOST: Final = rb"(?:\x20+(?:" + _LINE_END + rb"|" + _VERSION + rb"))?"
_AFTER_PATH: Final = rb"(?:" + _LINE_END + rb"|" + _AFTER_HOST + rb")"
_FROM_PORT: Final = rb"(?::[0-9]*)?(?:[/?]" + _VISIBLE + _AFTER_PATH + rb"|" + _AFTER_HOST + rb")"
_URL: Final = rb"[A-Za-z][0-9A-Za-z+.\-]*" + _beginnings(
    *(rb":", rb"/", rb"/"),
    rb"(?:" + _LITERAL + _beginnings(rb"\]" + _FROM_PORT) + rb"|" + _NAME + _FROM_PORT + rb")",
)
_TARGET: Final = rb"(?:/" + _VISIBLE + _AFTER_PATH + rb"|" + _URL + rb")"
_REQUEST_LINE: Final = re.compile(rb"[A-Z_\-]+" + _beginnings(rb"(?P<space>\x20)\x20*", _TARGET))

_FIELD: Final = re.compile(
    _LINE_END + rb"|[^\x00-\x20\x7f:]+(?:\r+\n?|\n|:[^\x00\r\n]*(?:\r+\n?|\n)?)?"
)
_AUTHORITY: Final = re.compile(rb"[A-Za-z][0-9A-Za-z+.\-]*://(\[[^\]]*\]|[^/?:]*)(?::[0-9]*)?")
_NO_HOST: Final = re.compile(rb"[\x00-\x20/\x7f]|\.\.")
_WRONG_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_LITERAL_ESCAPE: Final = re.compile(rb"%(?:23|25|3[Ff])")
"""Escapes of characters that mean nothing in a path any more, once they are decoded: #, % and ?."""


class Fault(HTTPFailed):
    """A request that nginx refuses, with this status."""

    def __init__(self, status: int, method: bytes = b"", version: int = HTTP_10) -> None:
        super().__init__(f"not a request that nginx would take: {status}")
        self.status = status
        self.method = method
        """The method, where it was read; else empty."""
        self.version = version


@attrs.frozen
class RequestLine:
    """A request line."""

    method: bytes
    target: bytes
    version: int


def match_request_line(data: bytes) -> int:
    """Return how many bytes of `data`, which begins with a request line, can begin one.

    If the last of them is a line feed, the line is whole.
    """
    match = _REQUEST_LINE.match(data)
    return match.end() if match else 0


def parse_request_line(line: bytes) -> RequestLine:
    """Parse a line that `match_request_line` has matched, with its line feed. Raises Fault."""
    method, _, rest = line.partition(b" ")
    target, _, protocol = rest.strip(b" \r\n").partition(b" ")
    protocol = protocol.strip(b" ")
    version = HTTP_10 + int(protocol.removeprefix(b"HTTP/1.")) if protocol else HTTP_09
    is_wrong = _host_is_wrong(target) or _path_is_wrong(target)
    if is_wrong or (version == HTTP_09 and method != b"GET"):
        raise Fault(400, method, version)
    return RequestLine(method, target, version)


def request_line_fault(data: bytes, end: int) -> Fault:
    """Return the fault of a request line that can't go on after its first `end` bytes."""
    match = _REQUEST_LINE.match(data)
    method = data.partition(b" ")[0] if match and match["space"] else b""
    begun = data.rfind(b"HTTP/", 0, end)
    version = _NOT_SUPPORTED.match(data, begun) if begun >= 0 else None
    return Fault(505 if version and version.end() == end + 1 else 400, method)


def match_field(data: bytes, start: int) -> int:
    """Return up to where the bytes of `data` from `start` on can begin a header field.

    A line end alone, which ends the head, counts as one. If the last of them is a line feed, the
    line is whole.
    """
    match = _FIELD.match(data, start)
    return match.end() if match else start


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Return name, in lower case, and value of a line that `match_field` has matched."""
    name, _, value = line.rstrip(b"\r\n").partition(b":")
    return name.lower(), value.strip(b" ")


def _host_is_wrong(target: bytes) -> bool:
    match = _AUTHORITY.match(target)
    return match is not None and not is_host(match[1])


def is_host(host: bytes) -> bool:
    """Return whether nginx takes `host`, maybe with a port, as a host."""
    if _NO_HOST.search(host):
        return False
    if host.startswith(b"["):
        end = host.find(b"]") + 1 or len(host)
    else:
        end = host.find(b":") if b":" in host else len(host)
    # A final dot does not count, if it is the last of all.
    return end - (host.rfind(b".") == end - 1) > 0


def _path_is_wrong(target: bytes) -> bool:
    """Return whether the path has a wrong escape, or leads above the root."""
    if not target.startswith(b"/"):
        match = _AUTHORITY.match(target)
        target = target[match.end() :] if match else b""
    path = re.split(rb"[?#]", target, maxsplit=1)[0]
    if b"%" in path:
        if _WRONG_ESCAPE.search(path):
            return True
        path = unquote_to_bytes(_LITERAL_ESCAPE.sub(b"~", path))
    depth = 0
    for segment in path.split(b"/"):
        if segment == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif segment not in {b"", b"."}:
            depth += 1
    return False
