"""Values as strconv and time make them of the same text."""

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.config import strconv


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("80", 80),
        ("010", 8),
        ("0x1F", 31),
        ("0X1f", 31),
        ("0o17", 15),
        ("0b101", 5),
        ("1_000", 1000),
        ("0_7", 7),
        ("0x_1", 1),
        ("+5", 5),
        ("-0", 0),
        ("-0x10", -16),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_int(text: str, number: int):
    assert strconv.parse_int(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *["", " 5", "5 ", "1__0", "_1", "1_", "08", "0x", "0o8", "0b2", "1.0", "1e3", "--1", "٣"],
        *["x", "9223372036854775808", "-9223372036854775809", "1" * 5000, "0x" + "f" * 17],
    ],
)
def test_not_int(text: str):
    with pytest.raises(ValueError, match="want a whole number"):
        strconv.parse_int(text)


@given(st.integers(-(2**64), 2**64), st.sampled_from(["d", "#x", "#o", "#b", "_d"]))
def test_int_against_format(number: int, form: str):
    text = format(number, form)
    if -(2**63) <= number < 2**63:
        assert strconv.parse_int(text) == number
    else:
        with pytest.raises(ValueError, match="64 bits"):
            strconv.parse_int(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1_000.5", 1000.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_0", 10.0),
        ("1e3", 1000.0),
        ("-1.5E-1", -0.15),
        ("1e-400", 0.0),
        ("+Inf", math.inf),
        ("inf", math.inf),
        ("infinity", math.inf),
        ("-iNf", -math.inf),
    ],
)
def test_float(text: str, number: float):
    assert strconv.parse_float(text) == number


@pytest.mark.parametrize(
    "text",
    ["", ".", "1e", "1e400", "-1e400", "0x", "0x1.8", "nan", "1__0", "1_.5", " 1", "1f", "٣"],
)
def test_not_float(text: str):
    with pytest.raises(ValueError, match="want a number"):
        strconv.parse_float(text)


@given(st.floats(allow_nan=False))
def test_float_round_trip(number: float):
    assert strconv.parse_float(repr(number)) == number


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_true(text: str):
    assert strconv.parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_false(text: str):
    assert strconv.parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "tRUE", "2", " true", "true\n"])
def test_not_bool(text: str):
    with pytest.raises(ValueError, match=r"^want true or false$"):
        strconv.parse_bool(text)


SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("1h10m", 4200 * SECOND),
        ("10m", 600 * SECOND),
        ("1.5s", 1_500_000_000),
        ("300ms", 300_000_000),
        ("2us", 2000),
        ("2\u00b5s", 2000),
        ("2\u03bcs", 2000),
        ("-1s", -SECOND),
        ("+1s", SECOND),
        ("1s1s1h", 3602 * SECOND),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
        ("0.1ns", 0),
        ("1.00000000000000000000000001s", SECOND),
    ],
)
def test_duration(text: str, nanoseconds: int):
    assert strconv.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "want a duration, such as 2s, 1h10m or 300ms"),
        ("+", "want a duration, such as 2s, 1h10m or 300ms"),
        ("s", "want a duration, such as 2s, 1h10m or 300ms"),
        (".s", "want a duration, such as 2s, 1h10m or 300ms"),
        ("--1s", "want a duration, such as 2s, 1h10m or 300ms"),
        ("\n", "want a duration, such as 2s, 1h10m or 300ms"),
        ("2", "want a duration with its unit, such as 2s"),
        ("1h10", "want a duration with its unit, such as 1h10s"),
        ("1..5s", "want a duration with its unit, such as 1..5ss"),
        ("1d", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1S", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1h 1m", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1s\n", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("9223372036854775808ns", "want a duration below 292 years"),
        ("-9223372036854775809ns", "want a duration below 292 years"),
        ("2562048h", "want a duration below 292 years"),
        ("9" * 5000 + "s", "want a duration below 292 years"),
    ],
)
def test_not_duration(text: str, want: str):
    with pytest.raises(ValueError, match=f"^{re.escape(want)}$"):
        strconv.parse_duration(text)


UNITS = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 10**6, "us": 1000, "ns": 1}
parts = st.tuples(
    st.integers(0, 10**6),
    st.none() | st.from_regex(r"[0-9]{0,25}", fullmatch=True),
    st.sampled_from(list(UNITS)),
)


@given(st.sampled_from(["", "+", "-"]), st.lists(parts, min_size=1, max_size=5))
def test_duration_against_fractions(sign: str, several: list[tuple[int, str | None, str]]):
    text = sign
    total = 0
    for whole, fraction, unit in several:
        text += f"{whole}{'' if fraction is None else '.' + fraction}{unit}"
        exact = whole + Fraction(int(fraction or "0"), 10 ** len(fraction or ""))
        total += math.floor(exact * UNITS[unit])
    total = -total if sign == "-" else total
    if -(2**63) <= total < 2**63:
        assert strconv.parse_duration(text) == total
    else:
        with pytest.raises(ValueError, match="292 years"):
            strconv.parse_duration(text)
