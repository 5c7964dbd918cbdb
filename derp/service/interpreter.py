"""What each process sets up before Trio runs: its log, and the garbage collector."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from typing import Final

from derp import log
from derp.config import environment

_GC_THRESHOLDS: Final = (5_000, 4, 500)
"""For gc.set_threshold. The youngest generation has 5,000 objects and the middle one 20,000, whose
collection takes some 8 ms; the oldest is collected after ten million allocations."""

logger = log.get("server")


@contextlib.contextmanager
def logging_started(**fields: object) -> Iterator[None]:
    """Log as long as the block runs, unraisable exceptions included; `fields` are in each line."""
    level = logging.DEBUG if environment.debug_logs(os.environ) else logging.INFO
    with log.start(level, also=fields):
        sys.unraisablehook = _log_unraisable
        try:
            yield
        finally:
            sys.unraisablehook = sys.__unraisablehook__


def tune_garbage_collector() -> None:
    """Look for cycles seldom, and never among what was loaded at start.

    A full collection of what a thousand clients hold takes milliseconds, in which no packet moves.
    Relaying makes no cycles; ended connections make a few, found in the younger generations.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    if isinstance(error, UnicodeDecodeError):
        # From `ssl`, for a server name that is not ASCII. The handshake itself fails in good order.
        return
    logger.warning("ignored", reason=repr(error), where=unraisable.err_msg)
