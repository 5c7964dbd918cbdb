"""Rates, sizes and quotas: what is read of a text, and what is refused."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derp.accounts.counts import Period
from derp.files.ratelimit import MIN_BURST
from derp.policy import amounts

NUMBERS = st.decimals(1, 900, places=2).map(str) | st.integers(1, 900).map(str)
UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("10 Mbit/s", 1_250_000),
        ("10Mbit/s", 1_250_000),
        ("2.5 Mbit/s", 312_500),
        ("8 kbit/s", 1000),
        ("1 Gbit/s", 125_000_000),
        ("1000 Gbit/s", 125 * 10**9),
        ("80000 bit/s", 10_000),
        ("2 MB/s", 2_000_000),
        ("2 MiB/s", 2 << 20),
        ("1000 B/s", 1000),
    ],
)
def test_rates(text: str, bytes_per_second: int) -> None:
    assert amounts.rate(text) == bytes_per_second


@pytest.mark.parametrize(
    "text",
    [
        *("10", "", " ", "Mbit/s", "10 Mb/s", "10 Mbps", "10 mbit/s", "10 MBit/s", "10 Mbit"),
        *("10  Mbit/s", " 10 Mbit/s", "10 Mbit/s ", "10 Mbit/s\n", "-10 Mbit/s", "+1 Mbit/s"),
        *("1e3 Mbit/s", "10, Mbit/s", "1_0 Mbit/s", "10 Kbit/s", "10 Mibit/s", "inf Mbit/s"),
        *(".5 Mbit/s", "5. Mbit/s", "\u0661\u0660 Mbit/s", "10\u00a0Mbit/s", "unlimited"),
    ],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r'^want a rate such as "10 Mbit/s"'):
        amounts.rate(text)


@pytest.mark.parametrize("text", ["0 Mbit/s", "7.99 kbit/s", "999 B/s", "1001 Gbit/s", "1 TB/s"])
def test_rates_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match='from "8 kbit/s" to "1000 Gbit/s"'):
        amounts.rate(text)


@pytest.mark.parametrize(
    ("text", "size"), [("66 kB", 66_000), ("1 MB", 10**6), ("65568 B", MIN_BURST), ("1 TB", 10**12)]
)
def test_bursts(text: str, size: int) -> None:
    assert amounts.burst(text) == size


@pytest.mark.parametrize(
    "text", ["65567 B", "64 KiB", "0 MB", "1.000001 TB", "10", "1 MB/s", "1 Mb"]
)
def test_what_is_no_burst(text: str) -> None:
    with pytest.raises(ValueError, match=r"^want a (size|burst)"):
        amounts.burst(text)


@pytest.mark.parametrize(
    ("text", "size", "period"),
    [
        ("200 GB/month", 200 * 10**9, "month"),
        ("5 GB/day", 5 * 10**9, "day"),
        ("1.5TiB/month", 3 << 39, "month"),
        ("1 B/day", 1, "day"),
    ],
)
def test_quotas(text: str, size: int, period: str) -> None:
    assert amounts.quota(text) == (size, period)


@pytest.mark.parametrize(
    "text", ["200 GB", "200", "5 GB/week", "5 GB / day", "0 GB/day", "0.9 B/day", "5 GB/Month"]
)
def test_what_is_no_quota(text: str) -> None:
    with pytest.raises(ValueError, match=r"^want a quota"):
        amounts.quota(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("200 GB/month", "200 GB/month"),
        ("1 B/day", "1 B/day"),
        ("1 GiB/day", "1.07 GB/day"),
        ("999.6 kB/day", "1 MB/day"),
        ("1000000 TB/month", "1 EB/month"),
    ],
)
def test_quotas_for_people(text: str, shown: str) -> None:
    assert amounts.quota_text(*amounts.quota(text)) == shown


@given(st.integers(1, amounts.MAX_QUOTA // 1100), st.sampled_from(Period))
def test_a_quota_for_people_is_nearly_the_quota(size: int, period: Period) -> None:
    shown = amounts.quota_text(size, period)
    value, unit = shown.split(" ")
    assert unit.endswith(f"B/{period}")
    near = float(value) * 1000 ** "BkMGTP".index(unit[0])
    assert abs(near - size) <= size * 0.006


@given(NUMBERS, st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_an_amount_is_its_number_times_its_unit(number: str, unit: str, space: str) -> None:
    size = int(float(number) * UNITS[unit])
    assert abs(amounts.quota(f"{number}{space}{unit}/day")[0] - size) <= 1
    if amounts.MIN_RATE <= size <= amounts.MAX_RATE:
        assert abs(amounts.rate(f"{number}{space}{unit}/s") - size) <= 1


@given(NUMBERS, st.sampled_from(["k", "M"]))
def test_a_byte_is_eight_bits(number: str, prefix: str) -> None:
    in_bytes = amounts.rate(f"{number} {prefix}B/s")
    with contextlib.suppress(ValueError):  # too slow as bits
        assert in_bytes // 8 == amounts.rate(f"{number} {prefix}bit/s")


def outcome(read: Callable[[str], Any], text: str) -> tuple[str, Any]:
    try:
        return "", read(text)
    except ValueError as error:
        return str(error), None


@given(st.text() | st.from_regex(amounts.RATE_PATTERN) | st.from_regex(amounts.QUOTA_PATTERN))
@example("9" * 12 + ".999999 TB/month")
@example("9" * 5000 + " B/s")
def test_any_text_is_an_amount_or_an_error_on_one_line(text: str) -> None:
    for read, pattern in (
        (amounts.rate, amounts.RATE_PATTERN),
        (amounts.burst, amounts.SIZE_PATTERN),
        (amounts.quota, amounts.QUOTA_PATTERN),
    ):
        message, found = outcome(read, text)
        if found is None:
            assert message.startswith("want ")
            assert "\n" not in message
        else:
            assert re.search(pattern, text)
            assert 0 < (found[0] if isinstance(found, tuple) else found) < 2**63
