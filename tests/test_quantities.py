"""Sizes and rates as people read them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.policy import amounts
from derp.quantities import rate, rate_set, size, size_set

POWERS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}


@pytest.mark.parametrize(
    ("count", "measured", "given_text"),
    [
        (0, "0 B", "0 B"),
        (10, "10 B", "10 B"),
        (999, "999 B", "999 B"),
        (999.6, "1.00 kB", "1 kB"),
        (1000, "1.00 kB", "1 kB"),
        (1200, "1.20 kB", "1.2 kB"),
        (9994, "9.99 kB", "9.99 kB"),
        (9996, "10.0 kB", "10 kB"),
        (99_949, "99.9 kB", "99.9 kB"),
        (99_951, "100 kB", "100 kB"),
        (999_499, "999 kB", "999 kB"),
        (999_500, "1.00 MB", "1 MB"),
        (12_345_678_901, "12.3 GB", "12.3 GB"),
        (10**22, "10000 EB", "10000 EB"),
    ],
)
def test_sizes(count: int, measured: str, given_text: str) -> None:
    assert (size(count), size_set(count)) == (measured, given_text)


@pytest.mark.parametrize(
    ("bytes_per_second", "measured", "given_text"),
    [
        (0, "0 bit/s", "0 bit/s"),
        (1000, "8.00 kbit/s", "8 kbit/s"),
        (124_999, "1.00 Mbit/s", "1 Mbit/s"),
        (125_000, "1.00 Mbit/s", "1 Mbit/s"),
        (156_250, "1.25 Mbit/s", "1.25 Mbit/s"),
        (125 * 10**9, "1000 Gbit/s", "1000 Gbit/s"),
    ],
)
def test_rates_are_in_bits(bytes_per_second: int, measured: str, given_text: str) -> None:
    assert (rate(bytes_per_second), rate_set(bytes_per_second)) == (measured, given_text)


@given(st.integers(0, 10**21))
def test_a_size_has_three_digits_and_is_right(count: int) -> None:
    for text in (size(count), size_set(count)):
        number, prefix = re.fullmatch(r"([0-9.]+) ([kMGTPE]?)B", text).groups()
        if count < 999 * 10**18:
            assert len(number.replace(".", "")) <= 3
        assert abs(float(number) * POWERS[prefix] - count) <= 0.006 * count


@given(st.integers(amounts.MIN_RATE, amounts.MAX_RATE))
def test_the_policy_file_takes_a_rate_as_it_is_shown(bytes_per_second: int) -> None:
    read = amounts.rate(rate_set(bytes_per_second))
    assert abs(read - bytes_per_second) <= 0.006 * bytes_per_second
