"""A request's body, which is skipped as nginx does. Sans-I/O.

After ngx_http_discard_request_body (ngx_http_request_body.c) and ngx_http_parse_chunked
(ngx_http_parse.c). nginx takes any number of chunks; here a ReadBudget bounds the tiny ones.
"""

import re
from typing import Final

from derp.net.budgets import ReadBudget

MAX_LINE: Final = 4 << 10
"""Bytes of a chunk's first line, or of a trailer, that are waited for."""

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[; \t][^\r\n]*)?(?:\r\n|\n)")
_TRAILER: Final = re.compile(rb"[^\r\n]*\r?\n")
_BEGINNING: Final = re.compile(rb"(?:[0-9A-Fa-f]{0,15}|[0-9A-Fa-f]{1,15}[; \t][^\r\n]*)\r?")


class Body:
    """A body that is under way."""

    def __init__(self, length: int, *, chunked: bool) -> None:
        self._left = length
        """Bytes until the end, or until that of the chunk."""
        self._read_line = self._read_size if chunked else None
        """Reads the line that comes next; None without lines."""
        self._budget = ReadBudget()
        self.is_wrong = False
        """Whether it breaks the rules of the chunked coding, or has too many chunks."""
        self.ended = not chunked and not length

    def feed(self, data: bytes) -> bytes:
        """Skip what belongs to the body; return the rest.

        That goes before the next bytes: it is the beginning of a line, or, once the body has
        `ended`, what comes after it.
        """
        at = 0
        while at < len(data) and not self.ended and not self.is_wrong:
            if self._left:
                skipped = min(self._left, len(data) - at)
                self._left -= skipped
                at += skipped
                self.ended = not self._left and self._read_line is None
                continue
            begun = at
            at = self._read_line(data, at) if self._read_line is not None else at
            if at == begun:
                break
            if not self._budget.spend(at - begun + self._left):
                self.is_wrong = True
        return data[at:]

    def _read_size(self, data: bytes, start: int) -> int:
        """Read the first line of a chunk; return where the next one begins."""
        match = _SIZE.match(data, start)
        if match is None:
            self.is_wrong = not _BEGINNING.fullmatch(data, start)
            return self._wait(data, start)
        self._left = int(match[1], 16)
        self._read_line = self._read_end if self._left else self._read_trailer
        return match.end()

    def _read_end(self, data: bytes, start: int) -> int:
        """Read the line end after a chunk."""
        if data.startswith((b"\r\n", b"\n"), start):
            self._read_line = self._read_size
            return data.index(b"\n", start) + 1
        self.is_wrong = data[start:] != b"\r"
        return start

    def _read_trailer(self, data: bytes, start: int) -> int:
        """Read a line after the last chunk; an empty one is the last."""
        match = _TRAILER.match(data, start)
        if match is None:
            self.is_wrong = b"\r" in data[start:-1]
            return self._wait(data, start)
        self.ended = match[0] in {b"\n", b"\r\n"}
        return match.end()

    def _wait(self, data: bytes, start: int) -> int:
        self.is_wrong = self.is_wrong or len(data) - start > MAX_LINE
        return start
