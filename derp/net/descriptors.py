"""How near this process is to its limit of open files, what it says, and whom it turns away.

Each client takes a descriptor. The kernel gives out the lowest number that is free, and what
RLIMIT_NOFILE limits is these numbers; so the number of a socket just accepted tells how many are
open, at least, and nothing has to be counted:

    80 % of the limit     a warning
    95 %                  another
    all but a reserve     a last one, and for the newcomer another connection is closed that has not
                          logged in (`derp.relay.pending`), or else the newcomer itself, at once: it
                          hears so now, and not after the timeout of a handshake, and tries again
                          later or elsewhere

The reserve is a twenty-fifth of the limit, 64 at most. It is for what the relay opens itself:
files it reads again, name look-ups, questions about clients. Half of it is open to connections
from this machine, so that an operator can look at /debug/ even then.

Each warning comes once, and again only after the number of open descriptors has fallen by a tenth
of the limit. The limit is read anew when it matters, so that `prlimit` helps a running relay.

Where accept fails all the same (the reserve is used up, or the system has no more), the relay
serves those who are in, tries again a little later, and says so once, and once when it is over.
"""

import contextlib
import errno
import math
import resource
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from derp import log
from derp.metrics import process

FEW_CLIENTS: Final = 10_000
"""Below so many, the room for clients is told at the start."""
MOST_RESERVED: Final = 64
CALM_SECONDS: Final = 10.0
"""How long accept must not have failed for it to be over; also between two counts."""
OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_FULL: Final = 3
_RAISE_LIMIT: Final = "raise the limit on open files: LimitNOFILE=, --ulimit nofile=, ulimit -n"
_CURES: Final = {
    errno.EMFILE: _RAISE_LIMIT,
    errno.ENFILE: "raise the system's limit on open files: sysctl fs.file-max",
}

logger = log.get("listener")


def raise_limit() -> None:
    """Allow as many open files as the hard limit does, as Go programs do."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reserve(limit: int) -> int:
    """Return how many descriptors of `limit` no client gets."""
    return max(1, min(MOST_RESERVED, limit // 25))


def marks(limit: int) -> Sequence[int]:
    """Return the numbers of open descriptors, the newest included, from which there is a news."""
    return math.ceil(limit * 0.80), math.ceil(limit * 0.95), limit - reserve(limit) + 1


@attrs.define(eq=False)
class Descriptors:
    """What all listeners of a process share: the limit, and what has been said about it."""

    count: Callable[[], int] = process.count_fds
    """Counts open descriptors; raises OSError where that can't be done."""
    limit: Callable[[], int] = process.max_fds
    refused: int = attrs.field(init=False, default=0)
    """Connections closed at once since there was room last."""
    _told: int = attrs.field(init=False, default=0)
    """How many of the marks have been reached and told of."""
    _failed: float | None = attrs.field(init=False, default=None)
    """When accept failed last; None if that is over."""
    _look_at: float = attrs.field(init=False, default=-math.inf)
    _nothing_below: int = attrs.field(init=False, default=0)
    """Descriptors with a smaller number have nothing to tell."""

    def tell_if_few_fit(self) -> None:
        """Log how many clients there is room for, if it is not plenty."""
        limit = self.limit()
        opened = 0
        with contextlib.suppress(OSError):
            opened = self.count()
        room = max(0, limit - reserve(limit) - opened)
        if room < FEW_CLIENTS:
            logger.info("not many clients fit", clients=room, limit=limit, cure=_RAISE_LIMIT)

    def has_room(self, number: int, now: float, *, from_here: bool = False) -> bool:
        """Say whether there is room for a connection just accepted, with this descriptor.

        `from_here` is for connections from this machine, which may use half of the reserve.
        """
        if number < self._nothing_below:
            return True
        self._end_failure(now)
        limit, opened = self.limit(), number + 1
        reached = bisect_right(marks(limit), opened)
        if reached > self._told:
            self._told = reached
            self._tell(opened, limit)
        elif reached < self._told and now >= self._look_at:
            self._look_at = now + CALM_SECONDS
            self._look_back(limit)
        watchful = self._told or self._failed is not None
        self._nothing_below = 0 if watchful else marks(limit)[0] - 1
        return reached < _FULL or (from_here and opened <= limit - reserve(limit) // 2)

    def _tell(self, opened: int, limit: int) -> None:
        full = self._told == _FULL
        message = "no room for more clients" if full else "room for clients gets scarce"
        logger.warning(message, open=opened, limit=limit, cure=_RAISE_LIMIT)

    def _look_back(self, limit: int) -> None:
        """Find out whether there is so much more room that a mark may be told of again."""
        try:
            opened = self.count()
        except OSError:
            return
        near = bisect_right(marks(limit), opened + limit // 10)
        if near < _FULL and self.refused:
            logger.info(
                "there is room for clients again", open=opened, limit=limit, refused=self.refused
            )
            self.refused = 0
        self._told = min(self._told, near)

    def failed(self, error: OSError, now: float) -> None:
        """Note that accept failed for want of descriptors or memory."""
        if self._failed is None:
            cure = _CURES.get(error.errno or 0, "the system is short of memory")
            logger.error("can't accept connections", reason=error.strerror, cure=cure)
        self._failed = now
        self._nothing_below = 0

    def _end_failure(self, now: float) -> None:
        if self._failed is not None and now - self._failed >= CALM_SECONDS:
            self._failed = None
            logger.info("connections are accepted again")
