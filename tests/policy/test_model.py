"""What follows from an entry: the limit in force, and whether the key is refused."""

import pytest

from derp.accounts.counts import Period
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.policy.model import Denial, Entry, Policy, Quota

KEY, OTHER = bytes(range(32)), bytes(32)
SLOW, MIDDLE, FAST = (RateConfig(rate, 100_000) for rate in (1000, 10_000, 100_000))


class Used:
    """A count of bytes by key and period."""

    def __init__(self, **periods: int) -> None:
        self.periods = periods

    def used(self, key: bytes, period: str) -> int | None:
        return self.periods.get(period) if key == KEY else None

    def until(self, period: str) -> str:
        return "2026-12-02"


@pytest.mark.parametrize(
    ("entry", "default", "rate_config", "limit"),
    [
        # The entry, else the default, else -rate-config.
        (Entry(limit=FAST), SLOW, MIDDLE, FAST),
        (Entry(limit=NO_LIMIT), SLOW, MIDDLE, NO_LIMIT),
        (None, SLOW, MIDDLE, SLOW),
        (None, NO_LIMIT, MIDDLE, NO_LIMIT),
        (None, None, MIDDLE, MIDDLE),
        (None, None, NO_LIMIT, NO_LIMIT),
    ],
)
def test_the_order_of_limits(
    entry: Entry | None, default: RateConfig | None, rate_config: RateConfig, limit: RateConfig
) -> None:
    policy = Policy({} if entry is None else {KEY: entry}, Entry(limit=default))
    assert policy.of(KEY).limit_for(KEY, None, rate_config) == limit


@pytest.mark.parametrize(("limit", "throttled"), [(FAST, MIDDLE), (SLOW, SLOW), (NO_LIMIT, MIDDLE)])
def test_a_throttle_lowers_a_limit_over_quota(limit: RateConfig, throttled: RateConfig) -> None:
    entry = Entry(quota=Quota(500, Period.DAY, MIDDLE))
    assert entry.limit_for(KEY, Used(day=500), limit) == throttled
    assert entry.limit_for(KEY, Used(day=499, month=900), limit) == limit
    assert entry.limit_for(KEY, None, limit) == limit
    assert entry.refusal(KEY, Used(day=500)) is None


def test_a_key_over_quota_is_refused_where_the_policy_says_so() -> None:
    entry = Entry(allowed=True, quota=Quota(500, Period.MONTH, None))
    assert entry.refusal(KEY, Used(month=500)) == Denial(
        "over its quota for this month in -policy", over_quota=True
    )
    assert entry.refusal(KEY, Used(month=499)) is None
    assert entry.limit_for(KEY, Used(month=500), FAST) == FAST


@pytest.mark.parametrize("usage", [None, Used()], ids=["nothing counts", "it is not known"])
def test_no_quota_holds_where_nothing_is_known_of_the_use(usage: Used | None) -> None:
    assert Entry(quota=Quota(1, Period.DAY, None)).refusal(KEY, usage) is None
    assert not Entry(quota=Quota(1, Period.DAY, SLOW)).over_quota(OTHER, usage)


def test_what_is_denied_is_refused() -> None:
    assert Entry(allowed=False).refusal(KEY, None) == Denial("the key is denied")
    assert Entry(allowed=True).refusal(KEY, None) is None
    assert Policy(default=Entry(allowed=False)).of(KEY).refusal(KEY, None) == Denial(
        "the key is denied"
    )


def test_quotas_are_found_wherever_they_are() -> None:
    quota = Entry(quota=Quota(1, Period.DAY, None))
    assert Policy({KEY: quota}).has_quotas
    assert Policy(default=quota).has_quotas
    assert not Policy({KEY: Entry()}).has_quotas
