"""The rule by which the verdicts of several sources make one.

    a key that the policy denies is refused, and one that it allows is admitted
    a key in the allow-list, or in a list of devices, is admitted
    any other must be known to a tailscaled       (with -verify-clients)
    and allowed by one of the URLs                (with -verify-client-url)

With lists but neither tailscaled nor URLs, every other key is refused; with a policy alone, every
other key is admitted. With -verify-all, every source but the policy must admit a key: each list,
each tailscaled and each URL. A source that can't be asked refuses; only URLs admit then, as in the
Go derper, unless -verify-client-url-fail-open is false.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from derp.admission.allowlist import AllowList
from derp.admission.devicelist import DeviceList
from derp.admission.model import UNAVAILABLE, Outcome, Question, Source, Verdict
from derp.admission.policysource import ALLOWED, PolicySource

Ask = Callable[[Source], Coroutine[Any, Any, Verdict]]
"""Asks one source about the client in question."""
_Asked = Callable[[], Coroutine[Any, Any, Verdict]]
"""Asks a certain source about the client in question."""

_NOT_YET: Final = (Outcome.NO_ROOM, Outcome.SLOW)
_ALTERNATIVES: Final = (Outcome.ALLOWED, *_NOT_YET, *UNAVAILABLE, Outcome.REFUSED)
"""Of the outcomes of alternatives, the first in this order counts.

NO_ROOM and SLOW come before UNAVAILABLE: unknown clients that fill one URL's queue, or come while
it is slow, must not be admitted because another URL is down. REFUSED comes last: one that is down
might have allowed the client.
"""
_REQUIRED: Final = (Outcome.REFUSED, *_NOT_YET, *UNAVAILABLE, Outcome.ALLOWED)
"""Of the outcomes of sources that are all required, the first in this order counts."""


@attrs.define(kw_only=True, eq=False, on_setattr=attrs.setters.frozen)
class Sources:
    """The sources of a relay, and what each is for."""

    policy: PolicySource | None = attrs.field(default=None, on_setattr=attrs.setters.NO_OP)
    """None until there is a file."""
    allowlist: AllowList | None = None
    devices: Sequence[DeviceList] = ()
    tailscaleds: Sequence[Source] = ()
    urls: Sequence[Source] = ()
    fail_open: bool = True
    """Whether URLs that can't be asked admit."""
    require_all: bool = False
    """Whether every source has to admit a client."""
    is_ordered: bool = False
    """Whether of several alternatives that admit the first counts, not that which answers first."""

    @property
    def asked(self) -> Sequence[Source]:
        """The sources that are asked, and so may be unavailable."""
        return [*self.devices, *self.tailscaleds, *self.urls]

    def check(self, question: Question) -> Verdict | None:
        """Return the verdict of policy and lists; None if sources have to be asked."""
        if self.policy is not None and (verdict := self.policy.check(question)) is not None:
            return verdict
        asked = self.asked
        if not asked and self.allowlist is None:
            return None if self.policy is None else ALLOWED
        listed = None if self.allowlist is None else self.allowlist.check(question)
        if listed is not None and (not asked or listed.admitted is not self.require_all):
            return listed
        if not self.require_all:
            for source in self.devices:
                if (verdict := source.check(question)).admitted:
                    return verdict
        return None

    async def ask(self, question: Question, ask: Ask) -> Verdict:
        """Return the verdict of sources that have to be asked; `check` comes first."""
        asks = [partial(ask, source) for source in self.devices]
        if self.require_all:
            asks += [partial(ask, source) for source in self.tailscaleds]
            asks += [partial(self._ask_url, ask, source) for source in self.urls]
            verdicts = await _ask(asks, until=Outcome.REFUSED)
            if self.allowlist is not None:
                verdicts = [self.allowlist.check(question), *verdicts]
            return _required(verdicts)
        if self.tailscaleds or self.urls:
            asks.append(partial(self._ask_as_go, ask))
        return await self._ask_alternatives(asks)

    async def _ask_as_go(self, ask: Ask) -> Verdict:
        """Ask tailscaled and the URLs (Go: verifyClient)."""
        first = None
        if self.tailscaleds:
            asks = [partial(ask, source) for source in self.tailscaleds]
            first = await self._ask_alternatives(asks)
            if not first.admitted or not self.urls:
                return first
        second = await self._ask_alternatives([partial(ask, source) for source in self.urls])
        second = self._fail_open(second)
        if first is None or not second.admitted:
            return second
        return _required([first, second])

    async def _ask_url(self, ask: Ask, source: Source) -> Verdict:
        return self._fail_open(await ask(source))

    def _fail_open(self, verdict: Verdict) -> Verdict:
        """Return the verdict of a URL, as one that admits if the URL is unavailable and may."""
        opens = verdict.outcome in UNAVAILABLE and self.fail_open
        return attrs.evolve(verdict, failed_open=True) if opens else verdict

    async def _ask_alternatives(self, asks: Sequence[_Asked]) -> Verdict:
        """Ask concurrently; return the verdict that counts."""
        if len(asks) == 1:
            return await asks[0]()
        verdicts = await _ask(asks, until=None if self.is_ordered else Outcome.ALLOWED)
        counts = min(verdicts, key=_rank)
        if counts.outcome is not Outcome.REFUSED:
            return counts
        names = ", ".join(verdict.source for verdict in verdicts)
        return Verdict(
            Outcome.REFUSED, names, "; ".join(dict.fromkeys(each.reason for each in verdicts))
        )


def _rank(verdict: Verdict) -> tuple[bool, int]:
    """Return the sort key of alternatives: the least verdict counts."""
    return not verdict.admitted, _ALTERNATIVES.index(verdict.outcome)


def _required(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of sources of which each has to admit."""
    refusals = [verdict for verdict in verdicts if not verdict.admitted]
    counts = min(refusals or verdicts, key=lambda verdict: _REQUIRED.index(verdict.outcome))
    if refusals:
        return counts
    return attrs.evolve(counts, source=", ".join(verdict.source for verdict in verdicts))


async def _ask(asks: Sequence[_Asked], until: Outcome | None) -> list[Verdict]:
    """Ask concurrently, `until` an outcome; return the verdicts, in the order of `asks`."""
    verdicts: dict[int, Verdict] = {}

    async def ask(number: int) -> None:
        verdict = verdicts[number] = await asks[number]()
        if verdict.outcome is until:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(asks)):
            nursery.start_soon(ask, number)
    return [verdicts[number] for number in sorted(verdicts)]
