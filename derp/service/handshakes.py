"""The deadlines of what comes before HTTP: one timer for all, in place of cancel scopes."""

from functools import partial
from typing import Final, NoReturn

import trio

from derp.errors import ConnectionEnd, ProxyHeaderFailed, TLSFailed
from derp.relay.pending import Pending

TLS_TIMEOUT: Final = 30.0
"""Seconds for the TLS handshake (Go: ReadTimeout of cmd/derper's http.Server)."""
HEADER_TIMEOUT: Final = 10.0
"""Seconds for the PROXY header, which proxies send at once. The protocol wants 3 or more."""
ENDS_PER_TURN: Final = 8
"""Connections that `run` ends in one turn of the event loop: many may have begun at once."""


class Handshakes:
    """The connections that have `timeout` seconds for something; `run` ends those that take longer.

    They end with `error`, which says that there was no `what`.
    """

    def __init__(
        self,
        timeout: float = TLS_TIMEOUT,
        what: str = "TLS handshake",
        error: type[ConnectionEnd] = TLSFailed,
    ) -> None:
        self._timeout = timeout
        self._late = partial(error, f"no {what} within {timeout:.0f} s")
        self._deadlines: dict[Pending, float] = {}
        """The earliest deadline first, since all have the same time."""

    def begin(self, pending: Pending) -> None:
        """Have a connection closed after the time, unless `done` is called before."""
        self._deadlines[pending] = trio.current_time() + self._timeout

    def done(self, pending: Pending) -> None:
        """Note that a connection has done it, or has ended. May be called more than once."""
        self._deadlines.pop(pending, None)

    async def run(self) -> NoReturn:
        """Close connections whose time is up, for ever."""
        while True:
            # One that begins during the sleep is not due before `wake`.
            wake = trio.current_time() + self._timeout
            await trio.sleep_until(next(iter(self._deadlines.values()), wake))
            self._close_due()

    def _close_due(self) -> None:
        now = trio.current_time()
        for _ in range(ENDS_PER_TURN):
            pending = next(iter(self._deadlines), None)
            if pending is None or self._deadlines[pending] > now:
                break
            self.done(pending)
            pending.close(self._late())


def proxy_headers() -> Handshakes:
    """Return the connections of which a PROXY header is awaited."""
    return Handshakes(HEADER_TIMEOUT, "whole PROXY header", ProxyHeaderFailed)
