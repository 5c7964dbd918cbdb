"""Variables of the Go derper that stand for no flag (Go: package envknob).

DERP_DEBUG_LOGS is read. The others have no effect, and a warning at start says why. The variables
for the debug pages stand for flags (derp.config.pages).
"""

from collections.abc import Mapping
from typing import Final

from derp.config.strconv import BOOLS, parse_bool, quoted
from derp.errors import UsageError

DEBUG_LOGS: Final = "DERP_DEBUG_LOGS"
"""A bool: whether to log at level debug, too."""

_WITHOUT_EFFECT: Final = {
    "DERP_PROBER_DEBUG_LOGS": "frames are not logged",
    "TS_DEBUG_VERBOSE_DROPS": "drops are counted (derp_packets_dropped), not logged one by one",
    "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH": (
        "a client's queue is bounded in bytes and in age, not in packets"
    ),
    "TS_DERP_DISABLE_RTT_STATS": "round-trip times are always sampled",
}


def debug_logs(environ: Mapping[str, str]) -> bool:
    """Return the value of DERP_DEBUG_LOGS. Raises UsageError if it is not a bool."""
    text = environ.get(DEBUG_LOGS, "")
    try:
        return bool(text) and parse_bool(text)
    except ValueError as error:
        raise UsageError(f"{DEBUG_LOGS}={quoted(text)}: {error}") from None


def warnings(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that is set and has no effect."""
    return [
        f"{name} is set, and has no effect here: {why}"
        for name, why in _WITHOUT_EFFECT.items()
        # What is set to false needs no warning.
        if environ.get(name) and BOOLS.get(environ[name], True)
    ]
