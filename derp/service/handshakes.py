"""The deadlines of TLS handshakes: one timer for all, instead of a cancel scope for each."""

from typing import Final, NoReturn

import trio

from derp.errors import TLSFailed
from derp.relay.pending import Pending

TLS_TIMEOUT: Final = 30.0
"""Seconds for the TLS handshake (Go: ReadTimeout of cmd/derper's http.Server)."""
ENDS_PER_TURN: Final = 8
"""Handshakes that `run` ends in one turn of the event loop: many may have begun at once."""


class Handshakes:
    """The connections whose TLS handshake is under way; `run` ends those that take too long."""

    def __init__(self) -> None:
        self._deadlines: dict[Pending, float] = {}
        """The earliest deadline first, since all handshakes have the same time."""

    def begin(self, pending: Pending) -> None:
        """Have a connection closed in TLS_TIMEOUT seconds, unless `done` is called before."""
        self._deadlines[pending] = trio.current_time() + TLS_TIMEOUT

    def done(self, pending: Pending) -> None:
        """Note that a handshake has ended. May be called more than once."""
        self._deadlines.pop(pending, None)

    async def run(self) -> NoReturn:
        """Close connections whose time is up, for ever."""
        while True:
            # A handshake that begins during the sleep is not due before `wake`.
            wake = trio.current_time() + TLS_TIMEOUT
            await trio.sleep_until(next(iter(self._deadlines.values()), wake))
            self._close_due()

    def _close_due(self) -> None:
        now = trio.current_time()
        for _ in range(ENDS_PER_TURN):
            pending = next(iter(self._deadlines), None)
            if pending is None or self._deadlines[pending] > now:
                break
            self.done(pending)
            pending.close(TLSFailed(f"no TLS handshake within {TLS_TIMEOUT:.0f} s"))
