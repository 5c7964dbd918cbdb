"""Bounds on the log lines that strangers can cause at will.

Of each kind of event the first few in a window of time are logged one by one; the rest are counted,
and the count is logged at the end of the window. Times are in seconds of any monotonic clock.

    if coalescer.should_log(end.reason, now, network):
        logger.info("refused", reason=end.reason, remote=...)

    for summary in coalescer.due(now):      # from a timer
        logger.info("refused more", reason=summary.key, count=summary.count, ...)
"""

from typing import Final

import attrs

MAX_KEYS: Final = 64
"""Keys that are told apart by default; a key names a kind of event."""
MAX_DISTINCT: Final = 256
"""Networks (in `derp.log.clients` clients, too) that are told apart in one window of one key."""

OTHER: Final = "other"
"""The key that stands for all keys beyond `most`."""


@attrs.frozen
class Summary:
    """Events of one key that were not logged one by one."""

    key: str
    count: int
    seconds: float
    """Seconds from the first event of the window, logged or not, to the summary."""
    networks: int
    """Distinct networks that the events came from; MAX_DISTINCT stands for as many or more."""


@attrs.define
class _Window:
    start: float
    logged: int = 0
    counted: int = 0
    networks: set[str] = attrs.field(factory=set)


class Coalescer:
    """The events of each key in a window of `window` seconds: `limit` are logged, the rest counted.

    At most `most` keys are told apart, and MAX_DISTINCT networks of each; OTHER is for the others.
    """

    def __init__(self, limit: int = 5, window: float = 60.0, most: int = MAX_KEYS) -> None:
        self._limit = limit
        self._seconds = window
        self._most = most
        self._windows: dict[str, _Window] = {}

    def should_log(self, key: str, now: float, network: str | None = None) -> bool:
        """Return whether to log this event by itself; if not, count it.

        A window begins with its first event. One with counted events ends only when `due` or
        `drain` returns them, however late that is, so that no summary is lost.
        """
        window = self._window(key, now)
        if window.logged < self._limit:
            window.logged += 1
            return True
        window.counted += 1
        if network is not None and len(window.networks) < MAX_DISTINCT:
            window.networks.add(network)
        return False

    def due(self, now: float) -> list[Summary]:
        """End the windows that are over; return their counts."""
        over = [key for key, window in self._windows.items() if self._is_over(window, now)]
        return self._end(over, now)

    def drain(self, now: float) -> list[Summary]:
        """End all windows, over or not; return their counts."""
        return self._end(list(self._windows), now)

    def _window(self, key: str, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None and len(self._windows) >= self._most:
            key = OTHER
            window = self._windows.get(key)
        if window is None or (self._is_over(window, now) and not window.counted):
            window = self._windows[key] = _Window(now)
        return window

    def _is_over(self, window: _Window, now: float) -> bool:
        return now - window.start >= self._seconds

    def _end(self, keys: list[str], now: float) -> list[Summary]:
        windows = [(key, self._windows.pop(key)) for key in keys]
        return [
            Summary(key, window.counted, now - window.start, len(window.networks))
            for key, window in windows
            if window.counted
        ]
