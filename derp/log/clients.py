"""Bounds on the log lines that clients can cause by connecting and disconnecting.

Joins and leaves are logged one by one: in a window of time, up to PER_CLIENT of each client and
PER_NETWORK of each network, and in all as many as a rate allows. The rest are counted, and each
kind's count is logged at the end of the window. Times are in seconds of any monotonic clock.

    if events.should_log("joined", client, network, now):
        logger.info("joined", client=client, ...)

    for summary in events.due(now):         # from a timer
        logger.info(f"{summary.event} more", connections=summary.count, ...)
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

from derp.log.coalesce import MAX_DISTINCT

WINDOW: Final = 60.0
"""Seconds."""
PER_CLIENT: Final = 5
PER_NETWORK: Final = 60
"""Lines of one kind in a window."""


@attrs.frozen
class ClientSummary:
    """Events of one kind that were not logged one by one."""

    event: str
    count: int
    seconds: float
    """Seconds from the first event of the window, logged or not, to the summary."""
    clients: int
    """Distinct clients; MAX_DISTINCT stands for as many or more, here and in `networks`."""
    networks: int


@attrs.define
class _Unlogged:
    count: int = 0
    clients: set[str] = attrs.field(factory=set)
    networks: set[str] = attrs.field(factory=set)


class ClientEvents:
    """The joins and leaves of a window: decides which are logged, and counts the others.

    `allow(now)` returns whether the rate has room for one more line. The rate bounds memory, too:
    only a logged event adds its client and network to `_logged`.
    """

    def __init__(self, allow: Callable[[float], bool]) -> None:
        self._allow = allow
        self._start: float | None = None
        """The time of the window's first event; None before it."""
        self._logged: Counter[tuple[str, str]] = Counter()
        """Lines in this window by event and client, and by event and network."""
        self._unlogged: dict[str, _Unlogged] = {}

    def should_log(self, event: str, client: str, network: str | None, now: float) -> bool:
        """Return whether to log this event by itself; if not, count it.

        `network` is None for an address that many clients share, as behind a proxy.
        """
        if self._start is None or (now - self._start >= WINDOW and not self._unlogged):
            self._begin(now)
        of_client, of_network = (event, client), (event, network or "")
        logged = self._logged
        if logged[of_client] < PER_CLIENT and logged[of_network] < PER_NETWORK and self._allow(now):
            logged[of_client] += 1
            if network is not None:
                logged[of_network] += 1
            return True
        unlogged = self._unlogged.setdefault(event, _Unlogged())
        unlogged.count += 1
        for found, name in ((unlogged.clients, client), (unlogged.networks, network)):
            if name is not None and len(found) < MAX_DISTINCT:
                found.add(name)
        return False

    def due(self, now: float) -> list[ClientSummary]:
        """End the window if it is over; return its counts."""
        if self._start is None or now - self._start < WINDOW:
            return []
        return self.drain(now)

    def drain(self, now: float) -> list[ClientSummary]:
        """End the window, over or not; return its counts."""
        start = now if self._start is None else self._start
        summaries = [
            ClientSummary(event, rest.count, now - start, len(rest.clients), len(rest.networks))
            for event, rest in self._unlogged.items()
        ]
        self._begin(None)
        return summaries

    def _begin(self, now: float | None) -> None:
        self._start = now
        self._logged.clear()
        self._unlogged.clear()
