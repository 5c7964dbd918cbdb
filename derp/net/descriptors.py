"""The process's limit on open files: warnings as it comes near, and connections refused at it.

Each client takes a descriptor. The kernel assigns the lowest free number, and RLIMIT_NOFILE limits
these numbers; so the number of a socket just accepted is a lower bound on how many are open, and
nothing has to be counted:

    80 % of the limit     a warning
    95 %                  another warning
    all but a reserve     a last warning; a pending connection is closed for the new
                          one (`derp.relay.pending`), or the new one at once, so that its client
                          need not wait for a timeout before it tries again or elsewhere

The reserve, a twenty-fifth of the limit and 64 at most, is for the relay's own files, name look-ups
and admission; connections from this machine may use half of it, for an operator to read /debug/.

Each warning comes once, and again only after the number of open descriptors has fallen by a tenth
of the limit. The limit is read when it matters, so that `prlimit` helps a running relay.

If accept fails all the same (the reserve is used up, or the system has no more), the relay serves
its clients and soon tries again; the first failure and the recovery are logged.
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
"""If room is for fewer clients than this, their number is logged at the start."""
MAX_RESERVE: Final = 64
RECOVERY_SECONDS: Final = 10.0
"""Seconds without a failure after which accept has recovered; also between two recounts."""
OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_FULL: Final = 3
"""The number of `thresholds` reached when only the reserve is left."""
_RAISE_LIMIT: Final = "raise the limit on open files: LimitNOFILE=, --ulimit nofile=, ulimit -n"
_CURES: Final = {
    errno.EMFILE: _RAISE_LIMIT,
    errno.ENFILE: "raise the system's limit on open files: sysctl fs.file-max",
}

logger = log.get("listener")


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard limit, as Go programs do."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reserve(limit: int) -> int:
    """Return how many descriptors of `limit` are reserved: not for clients."""
    return max(1, min(MAX_RESERVE, limit // 25))


def thresholds(limit: int) -> Sequence[int]:
    """Return the numbers of open descriptors from which warnings are due, in rising order."""
    return math.ceil(limit * 0.80), math.ceil(limit * 0.95), limit - reserve(limit) + 1


@attrs.define(eq=False)
class Descriptors:
    """The state of the limit, shared by all listeners of a process."""

    count: Callable[[], int] = process.count_fds
    """Returns the number of open descriptors. Raises OSError if that is unknown."""
    limit: Callable[[], int] = process.max_fds
    refused: int = attrs.field(init=False, default=0)
    """Connections closed at once since there was last room."""
    _thresholds_logged: int = attrs.field(init=False, default=0)
    """How many thresholds were reached and logged."""
    _failed_at: float | None = attrs.field(init=False, default=None)
    """When accept failed last; None once it works again."""
    _recount_at: float = attrs.field(init=False, default=-math.inf)
    _quiet_below: int = attrs.field(init=False, default=0)
    """Descriptors with a smaller number need no check."""

    def log_if_few_fit(self) -> None:
        """Log how many clients fit, if they are few."""
        limit = self.limit()
        opened = 0
        with contextlib.suppress(OSError):
            opened = self.count()
        room = max(0, limit - reserve(limit) - opened)
        if room < FEW_CLIENTS:
            logger.info("not many clients fit", clients=room, limit=limit, cure=_RAISE_LIMIT)

    def accepts(self, now: float) -> bool:
        """Return whether connections are accepted at this moment."""
        try:
            opened = self.count()
        except OSError:
            opened = 0
        failing = self._failed_at is not None and now - self._failed_at < RECOVERY_SECONDS
        return not failing and opened < thresholds(self.limit())[_FULL - 1]

    def has_room(self, number: int, now: float, *, from_here: bool = False) -> bool:
        """Return whether a connection just accepted, with the descriptor `number`, may stay.

        `from_here`: whether it is from this machine, and may use half of the reserve.
        """
        if number < self._quiet_below:
            return True
        self._end_failure(now)
        limit, opened = self.limit(), number + 1
        reached = bisect_right(thresholds(limit), opened)
        if reached > self._thresholds_logged:
            self._thresholds_logged = reached
            self._warn(opened, limit)
        elif reached < self._thresholds_logged and now >= self._recount_at:
            self._recount_at = now + RECOVERY_SECONDS
            self._recount(limit)
        watchful = self._thresholds_logged or self._failed_at is not None
        self._quiet_below = 0 if watchful else thresholds(limit)[0] - 1
        return reached < _FULL or (from_here and opened <= limit - reserve(limit) // 2)

    def _warn(self, opened: int, limit: int) -> None:
        full = self._thresholds_logged == _FULL
        message = "no room for more clients" if full else "room for clients gets scarce"
        logger.warning(message, open=opened, limit=limit, cure=_RAISE_LIMIT)

    def _recount(self, limit: int) -> None:
        """Count the open descriptors; if enough were closed, make warnings due again."""
        try:
            opened = self.count()
        except OSError:
            return
        near = bisect_right(thresholds(limit), opened + limit // 10)
        if near < _FULL and self.refused:
            logger.info(
                "there is room for clients again", open=opened, limit=limit, refused=self.refused
            )
            self.refused = 0
        self._thresholds_logged = min(self._thresholds_logged, near)

    def failed(self, error: OSError, now: float) -> None:
        """Log that accept failed for want of descriptors or memory."""
        if self._failed_at is None:
            cure = _CURES.get(error.errno or 0, "the system is short of memory")
            logger.error("can't accept connections", reason=error.strerror, cure=cure)
        self._failed_at = now
        self._quiet_below = 0

    def _end_failure(self, now: float) -> None:
        if self._failed_at is not None and now - self._failed_at >= RECOVERY_SECONDS:
            self._failed_at = None
            logger.info("connections are accepted again")
