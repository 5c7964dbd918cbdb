"""The rule by which the verdicts of several sources make one: every combination of them."""

import math
from itertools import product
from pathlib import Path

import pytest
import trio
import trio.testing

from derp.admission.allowlist import AllowList
from derp.admission.devicelist import DeviceList
from derp.admission.model import Outcome, Question, Source, Verdict
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.devices.model import Devices
from derp.policy.model import Entry, Policy
from tests.admission.devicelists import Fetcher, make_list, wall

Clock = trio.testing.MockClock
CLIENT = Question(b"c" * 32, "192.0.2.1")
YES, NO, LOST, FULL = Outcome.ALLOWED, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NO_ROOM
SLOW = Outcome.SLOW


class Asked:
    """A source that says one thing, after a time."""

    def __init__(self, name: str, outcome: Outcome, takes: float = 0.0) -> None:
        self.name = name
        self.outcome = outcome
        self.takes = takes

    async def ask(self, question: Question) -> Verdict:
        await trio.sleep(self.takes)
        return Verdict(self.outcome, self.name, f"{self.name} says {self.outcome.value}")


def devices(outcome: Outcome, name: str = "tailnet:a") -> DeviceList:
    if outcome is LOST:
        return make_list(Fetcher(), name=name)
    keys = {CLIENT.key: math.inf} if outcome is YES else {}
    return make_list(Fetcher(), name=name, devices=Devices(keys, wall()))


def listed(outcome: Outcome | None) -> AllowList | None:
    keys = {CLIENT.key: ""} if outcome is YES else {b"x" * 32: ""}
    return None if outcome is None else AllowList(Path("list"), keys)


async def judge(sources: Sources) -> Verdict | None:
    """As the checker does."""

    async def ask(source: Source) -> Verdict:
        # What fetches a list is not about the rule.
        return source.check(CLIENT) if isinstance(source, DeviceList) else await source.ask(CLIENT)

    verdict = sources.check(CLIENT)
    return await sources.ask(CLIENT, ask) if verdict is None and sources.asked else verdict


COMBINATIONS = list(
    product(
        (None, YES, NO),
        [(), (YES,), (NO,), (LOST,), (NO, YES), (LOST, YES), (NO, LOST)],
        [(), (YES,), (NO,), (LOST,), (NO, YES), (LOST, YES), (NO, LOST), (NO, FULL)],
        [
            *((), (YES,), (NO,), (LOST,), (NO, YES), (LOST, YES), (NO, LOST), (NO, FULL)),
            *((SLOW,), (SLOW, NO), (SLOW, YES), (LOST, SLOW)),
        ],
    )
)


@pytest.mark.parametrize("fail_open", [True, False])
@pytest.mark.parametrize("is_ordered", [True, False])
async def test_alternatives(fail_open: bool, is_ordered: bool) -> None:
    """A list is enough; else tailscaled, one of several, and a URL, one of several."""
    for in_list, lists, tailscaleds, urls in COMBINATIONS:
        verdict = await judge(
            Sources(
                allowlist=listed(in_list),
                devices=[devices(each, f"tailnet:{n}") for n, each in enumerate(lists)],
                tailscaleds=[Asked(f"tailscaled:{n}", o) for n, o in enumerate(tailscaleds)],
                urls=[Asked(f"url:{n}", o) for n, o in enumerate(urls)],
                fail_open=fail_open,
                is_ordered=is_ordered,
            )
        )
        if in_list is None and not (lists or tailscaleds or urls):
            assert verdict is None
            continue
        opens = fail_open and LOST in urls and not {FULL, SLOW} & {*urls}
        by_asking = bool(tailscaleds or urls) and (
            (not tailscaleds or YES in tailscaleds) and (not urls or YES in urls or opens)
        )
        expected = in_list is YES or YES in lists or by_asking
        assert verdict is not None
        assert verdict.admitted == expected, (in_list, lists, tailscaleds, urls)
        assert verdict.source
        assert verdict.admitted or verdict.reason


@pytest.mark.parametrize("fail_open", [True, False])
async def test_all_required(fail_open: bool) -> None:
    """Each list, each tailscaled and each URL has to admit; only URLs do when they are down."""
    for in_list, lists, tailscaleds, urls in COMBINATIONS:
        if in_list is None and not (lists or tailscaleds or urls):
            continue
        verdict = await judge(
            Sources(
                allowlist=listed(in_list),
                devices=[devices(each, f"tailnet:{n}") for n, each in enumerate(lists)],
                tailscaleds=[Asked(f"tailscaled:{n}", o) for n, o in enumerate(tailscaleds)],
                urls=[Asked(f"url:{n}", o) for n, o in enumerate(urls)],
                fail_open=fail_open,
                require_all=True,
            )
        )
        admits = {YES, LOST} if fail_open else {YES}
        expected = in_list is not NO and {*lists, *tailscaleds} <= {YES} and {*urls} <= admits
        assert verdict is not None
        assert verdict.admitted == expected, (in_list, lists, tailscaleds, urls)
        assert verdict.failed_open == (expected and LOST in urls)
        if NO in (in_list, *lists, *tailscaleds, *urls):
            assert verdict.authoritative


@pytest.mark.parametrize("require_all", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
async def test_the_policy_comes_before_all(allowed: bool, require_all: bool) -> None:
    policy = PolicySource(Path("policy"), Policy({CLIENT.key: Entry(allowed=allowed)}))
    other = NO if allowed else YES
    verdict = await judge(
        Sources(
            policy=policy,
            allowlist=listed(other),
            devices=[devices(other)],
            urls=[Asked("url", other)],
            require_all=require_all,
        )
    )
    assert verdict is not None
    assert (verdict.admitted, verdict.source) == (allowed, "policy")


async def test_a_verdict_names_its_source() -> None:
    """A refusal names all that could have admitted; what all have to admit, all."""
    two = [devices(NO, "tailnet:a"), devices(NO, "headscale:b")]
    verdict = await judge(Sources(devices=two))
    assert verdict == Verdict(NO, "tailnet:a, headscale:b", "not among the devices that it lists")
    verdict = await judge(Sources(devices=two[:1], tailscaleds=[Asked("tailscaled", NO)]))
    assert verdict == Verdict(
        NO,
        "tailnet:a, tailscaled",
        "not among the devices that it lists; tailscaled says refused",
    )
    two = [devices(YES, "tailnet:a"), devices(YES, "headscale:b")]
    verdict = await judge(Sources(devices=two))
    assert verdict == Verdict(YES, "tailnet:a")
    every = Sources(allowlist=listed(YES), devices=two, urls=[Asked("url", YES)], require_all=True)
    verdict = await judge(every)
    assert verdict is not None
    assert (verdict.outcome, verdict.source) == (YES, "file, tailnet:a, headscale:b, url")
    verdict = await judge(Sources(tailscaleds=[Asked("tailscaled", YES)], urls=[Asked("url", YES)]))
    assert verdict is not None
    assert verdict.source == "tailscaled, url"


async def test_the_first_that_admits_counts_or_the_first_to_answer(autojump_clock: Clock) -> None:
    """Where groups depend on it, the order of the flags; else the time."""
    slow, quick = Asked("tailscaled:slow", YES, 4.0), Asked("tailscaled:quick", YES, 1.0)
    verdict = await judge(Sources(tailscaleds=[slow, quick]))
    assert verdict is not None
    assert (verdict.source, trio.current_time()) == ("tailscaled:quick", 1.0)
    verdict = await judge(Sources(tailscaleds=[slow, quick], is_ordered=True))
    assert verdict is not None
    assert (verdict.source, trio.current_time()) == ("tailscaled:slow", 5.0)


async def test_one_refusal_is_enough_where_all_are_required(autojump_clock: Clock) -> None:
    sources = Sources(urls=[Asked("a", YES, 5.0), Asked("b", NO, 1.0)], require_all=True)
    verdict = await judge(sources)
    assert verdict is not None
    assert (verdict.source, trio.current_time()) == ("b", 1.0)
