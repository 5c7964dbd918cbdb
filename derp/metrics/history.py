"""The traffic of the last minute, hour and day, in steps of a second, a minute and so on. Sans-I/O.

A step that is over has the mean rates of its time. Steps are numbered by the clock, so that those
of several processes with one clock can be added up.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import attrs


class Span(NamedTuple):
    """A stretch of time that ends now: `steps` of so many `seconds` each."""

    name: str
    seconds: int
    steps: int


SPANS: Final = (Span("minute", 1, 60), Span("hour", 60, 60), Span("day", 900, 96))

Rates = tuple[int, int]
"""Bytes a second: received from clients, sent to clients."""


@attrs.frozen
class Past:
    """The steps of one span that are over, the oldest first, at most as many as the span has."""

    end: int
    """The number of the step that is not over yet."""
    rates: Sequence[Rates] = ()


class History:
    """The rates of all SPANS. It takes the same memory whatever is sampled."""

    def __init__(self) -> None:
        self._steps = [_Steps(span) for span in SPANS]

    def sample(self, now: float, received: int, sent: int) -> None:
        """Note the bytes that all clients have sent and been sent since the start, at `now` in s.

        What has passed since the last sample is spread evenly over the steps since then.
        """
        for steps in self._steps:
            steps.sample(now, received, sent)

    def past(self) -> list[Past]:
        """Return what each of SPANS has."""
        return [steps.past() for steps in self._steps]


class _Steps:
    def __init__(self, span: Span) -> None:
        self._seconds = span.seconds
        self._most = span.steps
        self._rates: deque[Rates] = deque(maxlen=span.steps)
        self._number = 0
        """Of the step that is not over yet."""
        self._begin: tuple[float, int, int] | None = None
        """The first sample in that step; None before the first of all."""

    def sample(self, now: float, received: int, sent: int) -> None:
        number = int(now // self._seconds)
        if self._begin is not None:
            if (passed := number - self._number) <= 0:
                return
            begin, received_before, sent_before = self._begin
            rates = (
                round(max(0, received - received_before) / (now - begin)),
                round(max(0, sent - sent_before) / (now - begin)),
            )
            self._rates.extend([rates] * min(passed, self._most))
        self._number, self._begin = number, (now, received, sent)

    def past(self) -> Past:
        return Past(self._number, tuple(self._rates))


def added(pasts: Iterable[Past]) -> Past:
    """Add up one span of several processes, up to the step that is over in all of them.

    A process counts for nothing before its first step.
    """
    known = [past for past in pasts if past.rates]
    if not known:
        return Past(0)
    end = min(past.end for past in known)
    begin = min(past.end - len(past.rates) for past in known)
    sums = [(0, 0)] * max(0, end - begin)
    for past in known:
        first = past.end - len(past.rates) - begin
        for number, (received, sent) in enumerate(past.rates[: max(0, len(sums) - first)], first):
            sums[number] = sums[number][0] + received, sums[number][1] + sent
    return Past(end, tuple(sums))
