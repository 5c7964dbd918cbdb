"""Log lines for refusals, connects and disconnects that had no line of their own."""

from collections.abc import Sequence
from typing import Final, NoReturn

import trio

from derp import log
from derp.session.health import TOLD

SUMMARY_EVERY: Final = 10.0
"""Seconds."""

_MORE: Final = {"joined": "joined more", "left": "left more", TOLD: "told more"}

logger = log.get("server")


async def summarize(refusals: Sequence[log.Coalescer], events: log.ClientEvents) -> NoReturn:
    """Log the summaries that are due, from time to time; when cancelled, log all."""
    try:
        while True:
            await trio.sleep(SUMMARY_EVERY)
            now = trio.current_time()
            _log_refusals([summary for each in refusals for summary in each.due(now)])
            _log_events(events.due(now))
    finally:
        now = trio.current_time()
        _log_refusals([summary for each in refusals for summary in each.drain(now)])
        _log_events(events.drain(now))


def _log_refusals(summaries: Sequence[log.Summary]) -> None:
    for summary in summaries:
        logger.info(
            "refused more",
            reason=summary.key,
            connections=summary.count,
            networks=summary.networks or None,
            seconds=round(summary.seconds),
        )


def _log_events(summaries: Sequence[log.ClientSummary]) -> None:
    for summary in summaries:
        logger.info(
            _MORE[summary.event],
            connections=summary.count,
            clients=summary.clients,
            networks=summary.networks or None,
            seconds=round(summary.seconds),
        )
