"""Log lines about addresses that are refused again and again, for programs that ban (fail2ban).

fail2ban counts the lines of each address. So an address that comes back is logged again, however
many others are refused meanwhile. Each address and each network has a few lines in a window of
time. All lines together are bounded by two rates, one for first refusals and one for later ones, so
that many addresses that come once leave room for one that comes often. Times are in seconds of any
monotonic clock.

    number, has_line = tries.note(host, network, now)
"""

from collections.abc import Callable
from typing import Final

import attrs

WINDOW: Final = 600.0
"""Seconds, from the first refusal of an address or network on (fail2ban: findtime)."""
PER_ADDRESS: Final = 10
PER_NETWORK: Final = 30
"""Lines in a window."""
MAX_REMEMBERED: Final = 4096
"""Addresses, and as many networks, that are remembered: those whose windows began last."""


@attrs.define
class _Window:
    start: float
    tries: int = 0
    lines: int = 0


class Tries:
    """The refusals by address: counts them, and decides which are logged one by one.

    Two callables take a time and return whether their rate has room for a line: `allow_first` for
    the first refusal of an address in its window, `allow_again` for a later one.
    """

    def __init__(
        self, allow_first: Callable[[float], bool], allow_again: Callable[[float], bool]
    ) -> None:
        self._allow_first = allow_first
        self._allow_again = allow_again
        self._addresses: dict[str, _Window] = {}
        self._networks: dict[str, _Window] = {}

    def note(self, address: str, network: str, now: float) -> tuple[int, bool]:
        """Count a refusal; return its number in the address's window, and whether to log it."""
        of_address = _window(self._addresses, address, now)
        of_network = _window(self._networks, network, now)
        of_address.tries += 1
        if of_address.lines >= PER_ADDRESS or of_network.lines >= PER_NETWORK:
            return of_address.tries, False
        allow = self._allow_first if of_address.tries == 1 else self._allow_again
        if not allow(now):
            return of_address.tries, False
        of_address.lines += 1
        of_network.lines += 1
        return of_address.tries, True


def _window(windows: dict[str, _Window], name: str, now: float) -> _Window:
    window = windows.get(name)
    if window is None or now - window.start >= WINDOW:
        windows.pop(name, None)
        if len(windows) >= MAX_REMEMBERED:
            del windows[next(iter(windows))]
        window = windows[name] = _Window(now)
    return window
