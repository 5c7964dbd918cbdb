"""The heads of earlier upgrades, with the requests that h11 and `parse_request` made of them.

Clients that ask for DERP send the same bytes, login after login. The same bytes from the start of a
connection are the same request, so that h11 parses each head once. Only heads that led to DERP are
kept, and only a few short ones: what else strangers send changes nothing here. Nor are those in
which a proxy names a client.
"""

from typing import Final

from derp.http import forwarded
from derp.http.message import Request

MAX_HEADS: Final = 32
MAX_LENGTH: Final = 1024
"""Bytes of the longest head that is kept."""
_END: Final = b"\r\n\r\n"


class KnownHeads:
    """A bounded memory of heads."""

    def __init__(self) -> None:
        self._requests: dict[bytes, Request] = {}
        """By whole heads, with their empty lines; the oldest first."""

    def find(self, received: bytes, remote: str) -> tuple[bytes, Request] | None:
        """Return the known head that a connection's first bytes begin with, and its request.

        `remote` is the peer's IP address.
        """
        head = received[: received.find(_END) + len(_END)]
        request = self._requests.get(head)
        return None if request is None else (head, request.sent_by(remote))

    def add(self, head: bytes, request: Request) -> None:
        """Remember the first head of a connection; forget the oldest beyond MAX_HEADS."""
        # Another end, as of bare line feeds, is not what `find` looks for.
        if len(head) > MAX_LENGTH or head.find(_END) != len(head) - len(_END):
            return
        if any(name in forwarded.HEADERS for name, _ in request.headers):
            return
        if len(self._requests) >= MAX_HEADS:
            del self._requests[next(iter(self._requests))]
        self._requests[head] = request
