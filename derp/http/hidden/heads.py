"""The requests of one connection as nginx reads them, one by one, or their faults. Sans-I/O.

Its buffers bound a head: 1 KiB at first, then up to four of 8 KiB. A line that does not fit where
it has begun is moved to the next one, so that the bound depends on the lengths of the lines.

After ngx_http_process_request_line, ngx_http_process_request_headers,
ngx_http_alloc_large_header_buffer and ngx_http_process_request_header (ngx_http_request.c).
"""

import re
from typing import Final

import attrs

from derp.http.hidden.grammar import (
    HTTP_10,
    HTTP_11,
    Fault,
    RequestLine,
    is_host,
    match_field,
    match_request_line,
    parse_field,
    parse_request_line,
    request_line_fault,
)

FIRST_BUFFER: Final = 1 << 10
LARGE_BUFFER: Final = 8 << 10
LARGE_BUFFERS: Final = 4
MAX_REQUESTS: Final = 1000
"""Requests on one connection; the last is answered with Connection: close."""

MAX_LINES: Final = 100
"""Header fields in a head, since each takes long; with more it is too large. nginx has no such
bound."""

URI_TOO_LARGE: Final = 414
HEAD_TOO_LARGE: Final = 494
"""nginx's own number: it is told as 400."""

_UNIQUE: Final = frozenset(
    {
        b"host",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-match",
        b"if-none-match",
        b"content-length",
        b"content-range",
        b"if-range",
        b"transfer-encoding",
        b"expect",
        b"authorization",
    }
)
_KNOWN_NAME: Final = re.compile(rb"[0-9a-z\-]+")
"""Fields with other names are ignored."""
_DIGITS: Final = 18
"""Digits of a Content-Length; a few numbers of 19 digits, which nginx takes, don't count."""
_MSIE: Final = re.compile(rb"MSIE (?=...)", re.DOTALL)
_MSIE6: Final = re.compile(rb"MSIE (?:[45]\.|6\.(?!.*SV1))", re.DOTALL)


@attrs.frozen
class Head:
    """A request's head that nginx accepts; what becomes of it depends on what is served."""

    line: RequestLine
    fields: list[tuple[bytes, bytes]]
    """Names in lower case, without those that nginx ignores."""
    raw: bytes
    """As received, without empty lines before it."""
    length: int
    """Bytes of the body; 0 for none, and with `chunked`."""
    chunked: bool
    keeps_alive: bool
    """Whether the client wants the connection to go on."""
    padded: bool
    """Whether the answer's page is padded for the client's browser."""


class HeadReader:
    """The reader of a connection's heads."""

    def __init__(self) -> None:
        self._data = b""
        self._start = 0
        """Where in `_data` the request begins that is being read."""
        self._at = 0
        """Where its first line begins that has not been read."""
        self._room, self._large = FIRST_BUFFER, 0
        """What is left of nginx's current buffer, and its number of large ones."""
        self._requests = 0
        self._begin()

    def _begin(self) -> None:
        self._line: RequestLine | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._lines = 0
        self._seen: dict[bytes, bytes] = {}
        self._connection = b""
        self.padded = False
        """Whether the page of an answer is padded for the client's browser."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of a request has come."""
        return self._start < len(self._data)

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take bytes that have come."""
        self._data = self._data[self._start :] + data
        self._at -= self._start
        self._start = 0

    def take(self) -> bytes:
        """Return the bytes after the last head, and forget them."""
        rest = self._data[self._at :]
        self._data, self._start, self._at = b"", 0, 0
        return rest

    def next(self) -> Head | None:
        """Return the next head; None if it is not whole yet. Raises Fault."""
        line = self._line or self._read_request_line()
        if line is None:
            return None
        if line.version < HTTP_10:
            return self._end(line)
        data = self._data
        while self._at < len(data):
            end = match_field(data, self._at)
            whole = data.endswith(b"\n", self._at, end)
            if not self._fill(end - self._at, whole=whole):
                raise Fault(HEAD_TOO_LARGE, line.method)
            if not whole:
                if end < len(data):
                    raise Fault(400, line.method)
                return None
            text = data[self._at : end]
            self._at = end
            if text in {b"\r\n", b"\n"}:
                return self._end(line)
            self._take_field(line.method, *parse_field(text))
            self._make_room(line)
        return None

    def _read_request_line(self) -> RequestLine | None:
        """Read the request line; return None if it is not whole."""
        if empty := len(self._data) - self._start - len(self._data[self._start :].lstrip(b"\r\n")):
            # nginx reads them into the same buffer, again and again.
            size = LARGE_BUFFER if self._large else FIRST_BUFFER
            self._room = size - (size - self._room + empty) % size
            self._start += empty
        self._at = self._start
        data = self._data[self._start :]
        if not data:
            return None
        end = match_request_line(data)
        whole = data.endswith(b"\n", 0, end)
        if not self._fill(end, whole=whole):
            raise Fault(URI_TOO_LARGE, request_line_fault(data, end).method)
        if not whole:
            if end < len(data):
                raise request_line_fault(data, end)
            return None
        self._requests += 1
        self._at += end
        self._line = line = parse_request_line(data[:end])
        if line.version >= HTTP_10:
            self._make_room(line)
        return line

    def _make_room(self, line: RequestLine) -> None:
        if not self._fill(0, whole=False):
            raise Fault(HEAD_TOO_LARGE, line.method)

    def _fill(self, length: int, *, whole: bool) -> bool:
        """Put a line, or its beginning, into nginx's buffers; return whether it fits.

        Only a whole line is put there for good; the next one, of no bytes yet, gets a new buffer
        where the last one is full.
        """
        room, large, held = self._room, self._large, 0
        stays = whole or not length
        while length > room or (length == room and not whole):
            held += room
            length -= room
            if large == LARGE_BUFFERS:
                return False
            large += 1
            room = LARGE_BUFFER - held
        if stays:
            self._room, self._large = room - length, large
        return True

    def _take_field(self, method: bytes, name: bytes, value: bytes) -> None:
        """Check a field. Raises Fault."""
        self._lines += 1
        if self._lines > MAX_LINES:
            raise Fault(HEAD_TOO_LARGE, method)
        if not _KNOWN_NAME.fullmatch(name):
            return
        if (name in _UNIQUE and name in self._seen) or (name == b"host" and not is_host(value)):
            raise Fault(400, method)
        if name == b"connection":
            lower = value.lower()
            wanted = next((word for word in (b"close", b"keep-alive") if word in lower), b"")
            self._connection = wanted or self._connection
        elif name == b"user-agent" and name not in self._seen:
            self.padded = _is_padded(value)
        self._seen.setdefault(name, value)
        self._fields.append((name, value))

    def _end(self, line: RequestLine) -> Head:
        """Return the head that has ended. Raises Fault."""
        seen = self._seen
        if line.version > HTTP_10 and b"host" not in seen:
            raise Fault(400, line.method)
        length, chunked = _body(line, seen)
        if line.method in {b"CONNECT", b"TRACE"}:
            raise Fault(405, line.method)
        keeps_alive = self._connection != b"close" and (
            line.version > HTTP_10 or self._connection == b"keep-alive"
        )
        if line.method == b"POST" and _is_msie6(seen.get(b"user-agent", b"")):
            keeps_alive = False
        head = Head(
            line=line,
            fields=self._fields,
            raw=self._data[self._start : self._at],
            length=length,
            chunked=chunked,
            keeps_alive=keeps_alive and self._requests < MAX_REQUESTS,
            padded=self.padded,
        )
        self._start = self._at
        if not self.has_begun:
            self._room, self._large = FIRST_BUFFER, 0
        elif self._large:
            self._large = 1
        self._begin()
        return head


def _body(line: RequestLine, seen: dict[bytes, bytes]) -> tuple[int, bool]:
    """Return the announced length, and whether the body is chunked. Raises Fault."""
    length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    if length is not None and (not length.isdigit() or len(length.lstrip(b"0")) > _DIGITS):
        raise Fault(400, line.method)
    if coding is not None:
        if line.version < HTTP_11 or (coding.lower() == b"chunked" and length is not None):
            raise Fault(400, line.method)
        if coding.lower() != b"chunked":
            raise Fault(501, line.method)
    return int(length or 0), coding is not None


def _is_padded(user_agent: bytes) -> bool:
    """Return whether nginx pads its page for a browser (msie_padding)."""
    if b"Opera" in user_agent:
        return False
    if _MSIE.search(user_agent):
        return True
    return b"Gecko/" not in user_agent and b"Chrome/" in user_agent


def _is_msie6(user_agent: bytes) -> bool:
    return b"Opera" not in user_agent and _MSIE6.search(user_agent) is not None
