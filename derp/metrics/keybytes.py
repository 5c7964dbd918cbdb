"""Bytes by node key: a series each for a bounded number of keys, one for all others. Sans-I/O.

A meter is what counts one key's bytes from 0 on: a connection, or a worker's process. What it has
counted since it was observed last is added to the series of its key, so that a series never falls.
A key without a series counts for OTHER_KEYS until there is room. One that has not been observed for
KEPT seconds makes room for another; if it comes back, it starts from 0.
"""

from collections.abc import Hashable
from typing import Final

import attrs

OTHER_KEYS: Final = b""
"""Stands for the keys without a series."""
KEPT: Final = 3600.0
"""Seconds; a monitor forgets a series sooner."""


@attrs.define
class Series:
    """The bytes of one key, and when it was observed last."""

    sent: int = 0
    received: int = 0
    seen: float = 0.0


class KeyBytes:
    """The series of at most `most` keys, and that of OTHER_KEYS."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._series: dict[bytes, Series] = {}
        """The one that was observed longest ago first."""
        self._other = Series()
        self._meters: dict[Hashable, tuple[int, int]] = {}
        """The bytes sent and received that each meter had counted when it was observed last."""

    def observe(self, meter: Hashable, key: bytes, sent: int, received: int, now: float) -> None:
        """Add what a meter of `key` has counted since it was observed last.

        `sent` and `received` are all bytes that it has counted. `now` is in seconds of a monotonic
        clock.
        """
        sent_before, received_before = self._meters.get(meter, (0, 0))
        self._meters[meter] = sent, received
        series = self._find(key, now)
        # A worker drops the series of a key, too, and may have begun another.
        series.sent += max(0, sent - sent_before)
        series.received += max(0, received - received_before)

    def forget(self, meter: Hashable) -> None:
        """Forget a meter that counts no more; what it has counted stays."""
        self._meters.pop(meter, None)

    def meters(self) -> list[Hashable]:
        """Return the meters that were observed, and not forgotten."""
        return list(self._meters)

    def totals(self) -> dict[bytes, tuple[int, int]]:
        """Return the bytes sent and received by key, OTHER_KEYS included."""
        every = {**self._series, OTHER_KEYS: self._other}
        return {key: (series.sent, series.received) for key, series in every.items()}

    def _find(self, key: bytes, now: float) -> Series:
        if key == OTHER_KEYS:
            return self._other
        series = self._series.pop(key, None)
        if series is None:
            if len(self._series) >= self._most and not self._make_room(now):
                return self._other
            series = Series()
        self._series[key] = series
        series.seen = now
        return series

    def _make_room(self, now: float) -> bool:
        oldest = next(iter(self._series), None)
        if oldest is None or self._series[oldest].seen + KEPT > now:
            return False
        del self._series[oldest]
        return True
