import errno
import logging
import os
import subprocess
import sys

import pytest

from derp.net.descriptors import RECOVERY_SECONDS, Descriptors, reserve, thresholds


class Limits:
    """A limit and a number of open descriptors that a test sets."""

    def __init__(self, limit: int = 1000) -> None:
        self.value = limit
        self.open = 0
        self.counted = 0
        self.now = 0.0
        self.descriptors = Descriptors(self._count, lambda: self.value)

    def _count(self) -> int:
        self.counted += 1
        return self.open

    def open_up_to(self, number: int) -> list[bool]:
        """Accept connections until `number` descriptors are open, or would be."""
        before, self.open = self.open, number
        return [self.accept(n) for n in range(before, number)]

    def accept(self, number: int) -> bool:
        """Return whether there is room; if not, the connection is refused."""
        has_room = self.descriptors.has_room(number, self.now)
        self.descriptors.refused += not has_room
        return has_room


@pytest.fixture
def limits(caplog: pytest.LogCaptureFixture) -> Limits:
    caplog.set_level(logging.INFO)
    return Limits()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """Return messages and fields, without the cures."""
    return [
        (
            record.getMessage(),
            {name: value for name, value in record.__dict__["fields"].items() if name != "cure"},
        )
        for record in caplog.records
    ]


def cures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["fields"]["cure"] for record in caplog.records]


SCARCE = "room for clients gets scarce"
FULL = "no room for more clients"
AGAIN = "there is room for clients again"


@pytest.mark.parametrize(
    ("limit", "reserved"), [(1, 1), (20, 1), (100, 4), (1024, 40), (20_000, 64), (2**30, 64)]
)
def test_the_reserve(limit: int, reserved: int) -> None:
    assert reserve(limit) == reserved


@pytest.mark.parametrize("limit", [*range(1, 300), 1024, 4096, 20_000, 2**20, 2**30])
def test_the_marks_are_in_order(limit: int) -> None:
    first, second, full = thresholds(limit)
    assert first <= second <= full <= limit


def test_each_mark_is_told_of_once(limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    limits.open_up_to(799)
    assert said(caplog) == []
    limits.open_up_to(960)
    assert said(caplog) == [
        (SCARCE, {"open": 800, "limit": 1000}),
        (SCARCE, {"open": 950, "limit": 1000}),
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    for cure in cures(caplog):
        assert all(way in cure for way in ("LimitNOFILE=", "--ulimit nofile=", "ulimit -n"))


def test_the_reserve_is_left_alone(limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    assert all(limits.open_up_to(960))
    assert [limits.accept(960) for _ in range(5)] == [False] * 5
    assert limits.descriptors.refused == 5
    assert said(caplog)[2:] == [(FULL, {"open": 961, "limit": 1000})]


def test_half_of_the_reserve_is_for_connections_from_here(limits: Limits) -> None:
    limits.open_up_to(960)
    assert [n for n in range(960, 1000) if limits.descriptors.has_room(n, 0, from_here=True)] == [
        *range(960, 980)
    ]


def test_whoever_leaves_makes_room_at_once(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.open_up_to(960)
    limits.accept(960)
    caplog.clear()
    for _ in range(20):
        assert limits.accept(17)
        assert not limits.accept(960)
        limits.now += RECOVERY_SECONDS
    assert said(caplog) == []


def test_after_a_tenth_less_there_is_news_again(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.open_up_to(960)
    limits.accept(960)
    caplog.clear()
    limits.open = 861
    limits.accept(17)
    assert said(caplog) == []
    limits.open = 840
    limits.now += RECOVERY_SECONDS
    limits.accept(17)
    assert said(caplog) == [(AGAIN, {"open": 840, "limit": 1000, "refused": 1})]
    caplog.clear()
    limits.open_up_to(961)
    assert [message for message, _ in said(caplog)] == [SCARCE, FULL]
    assert limits.descriptors.refused == 1
    caplog.clear()
    limits.open = 600
    limits.now += RECOVERY_SECONDS
    limits.accept(17)
    limits.open_up_to(960)
    assert [message for message, _ in said(caplog)] == [AGAIN, SCARCE, SCARCE]


def test_descriptors_are_counted_seldom(limits: Limits) -> None:
    limits.open_up_to(790)
    assert limits.counted == 0
    limits.open_up_to(900)
    assert limits.counted == 0
    for _ in range(100):
        limits.accept(17)
    assert limits.counted == 1
    limits.open = 10
    limits.now += RECOVERY_SECONDS
    for _ in range(100):
        limits.accept(17)
    assert limits.counted == 2


def test_where_nothing_can_be_counted_it_is_told_once(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    limits.descriptors.count = fail
    limits.open_up_to(900)
    assert limits.accept(17)
    limits.descriptors.log_if_few_fit()
    assert said(caplog) == [
        (SCARCE, {"open": 800, "limit": 1000}),
        ("not many clients fit", {"clients": 960, "limit": 1000}),
    ]


def test_a_limit_raised_meanwhile_is_in_force(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.open_up_to(960)
    assert not limits.accept(960)
    limits.value = 5000
    limits.open = 960
    limits.now += RECOVERY_SECONDS
    assert limits.accept(960)
    assert said(caplog)[-1] == (AGAIN, {"open": 960, "limit": 5000, "refused": 1})


def test_room_for_few_is_told_at_the_start(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.open = 10
    limits.value = 10_074
    limits.descriptors.log_if_few_fit()
    assert said(caplog) == []
    limits.value = 1024
    limits.descriptors.log_if_few_fit()
    assert said(caplog) == [("not many clients fit", {"clients": 974, "limit": 1024})]
    assert "ulimit -n" in cures(caplog)[0]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOBUFS, "memory"),
        (errno.ENOMEM, "memory"),
    ],
)
def test_failing_accepts_are_one_line_and_their_end_another(
    limits: Limits, caplog: pytest.LogCaptureFixture, number: int, cure: str
) -> None:
    limits.open_up_to(10)
    for _ in range(100):
        limits.descriptors.failed(OSError(number, os.strerror(number)), limits.now)
        limits.now += 0.1
        # One may get in now and then.
        assert limits.accept(17)
    assert said(caplog) == [("can't accept connections", {"reason": os.strerror(number)})]
    assert caplog.records[0].levelname == "ERROR"
    assert cure in cures(caplog)[0]
    limits.now += RECOVERY_SECONDS
    for _ in range(5):
        limits.accept(17)
    assert [record.getMessage() for record in caplog.records[1:]] == [
        "connections are accepted again"
    ]


@pytest.mark.slow
def test_the_soft_limit_becomes_the_hard_one() -> None:
    code = """
import resource
from derp.net.descriptors import raise_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 100), hard))
raise_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
