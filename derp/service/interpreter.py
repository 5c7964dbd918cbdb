"""The setup of a process before Trio runs: its log, and the garbage collector."""

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
"""For gc.set_threshold, which counts containers allocated and not freed: the youngest generation is
collected at 5,000 of them, the middle one at some 20,000, the oldest at ten million at least."""

logger = log.get("server")


@contextlib.contextmanager
def logging_started(**fields: object) -> Iterator[None]:
    """Write log lines, with `fields` in each, until the block ends; log unraisable exceptions."""
    level = logging.DEBUG if environment.debug_logs(os.environ) else logging.INFO
    with log.start(level, also=fields):
        sys.unraisablehook = _log_unraisable
        try:
            yield
        finally:
            sys.unraisablehook = sys.__unraisablehook__


def tune_garbage_collector() -> None:
    """Collect garbage seldom, and never look at the objects loaded at start.

    A full collection of what a thousand clients hold takes milliseconds, in which no packet moves.
    Relaying makes no cycles; ended connections make a few, found in the younger generations.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    if isinstance(error, UnicodeDecodeError):
        # From `ssl`, for a server name that is not ASCII; the handshake fails as any other.
        return
    logger.warning("unraisable exception", reason=repr(error), where=unraisable.err_msg)
