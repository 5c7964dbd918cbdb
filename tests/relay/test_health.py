"""The words for what is wrong with a client."""

import itertools

import pytest

from derp.relay.health import Conditions, OverQuota, Refusal, text

USED = "this device has used up its quota of"
THROTTLED = OverQuota("5 GB/day", "2026-12-02", throttle="1 Mbit/s")


def test_nothing_is_said_where_all_is_well() -> None:
    assert text(Conditions()) == ""


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (
            THROTTLED,
            f"{USED} 5 GB/day here, and is slowed down to 1 Mbit/s until 2026-12-02 00:00 UTC",
        ),
        (
            OverQuota("200 GB/month", "2027-01-01", refused=True),
            f"{USED} 200 GB/month here, and is refused until 2027-01-01 00:00 UTC",
        ),
        (
            # Its own limit is below the throttle.
            OverQuota("1 B/day", "2026-12-02"),
            f"{USED} 1 B/day here, until 2026-12-02 00:00 UTC",
        ),
    ],
)
def test_a_quota_that_is_used_up(over: OverQuota, said: str) -> None:
    assert text(Conditions(over_quota=over)) == said


@pytest.mark.parametrize("refusal", Refusal)
def test_why_a_device_is_refused(refusal: Refusal) -> None:
    assert text(Conditions(refusal=refusal)) == refusal


def test_several_are_told_at_once_the_most_important_first() -> None:
    said = text(Conditions(stopping=True, over_quota=THROTTLED, cloned=True))
    parts = said.split(". Also, ")
    assert parts == [
        text(Conditions(stopping=True)),
        text(Conditions(over_quota=THROTTLED)),
        text(Conditions(cloned=True)),
    ]


def test_whatever_is_wrong_is_one_line_that_a_status_can_show() -> None:
    texts = [
        text(Conditions(stopping, refusal, over, cloned))
        for stopping, refusal, over, cloned in itertools.product(
            [False, True], [None, *Refusal], [None, THROTTLED], [False, True]
        )
    ]
    assert len(set(texts)) == len(texts)
    for said in texts:
        assert len(said) < 700
        assert said.isprintable()
        # It stands behind a colon, and ends where a full stop may be added.
        assert not said or (said[0].islower() and said[-1].isalnum()), said
