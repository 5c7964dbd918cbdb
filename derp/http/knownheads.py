"""The heads of earlier upgrades, with the requests that h11 and `parse_request` made of them.

Clients that ask for DERP send the same bytes, login after login. The same bytes from the start of a
connection are the same request, so that h11 parses each head once. Only heads that led to DERP are
kept, and only a few short ones: what else strangers send changes nothing here.
"""

from typing import Final

from derp.http.message import Request

MOST: Final = 32
LONGEST: Final = 1024
"""Heads kept, and bytes of one, at most."""
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
        """Remember the first head of a connection, in place of the oldest one."""
        # Another end, as of bare line feeds, is not what `find` looks for.
        if len(head) > LONGEST or head.find(_END) != len(head) - len(_END):
            return
        if len(self._requests) >= MOST:
            del self._requests[next(iter(self._requests))]
        self._requests[head] = request
