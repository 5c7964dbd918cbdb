"""When a server wants to be asked again."""

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.retryafter import parse_http_date, parse_retry_after

START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("Tue, 01 Jan 2030 00:02:00 GMT", 120),
        ("Tuesday, 01-Jan-30 00:02:00 GMT", 120),
        ("Tue Jan  1 00:02:00 2030", 120),
        ("Mon, 31 Dec 2029 23:59:59 GMT", 0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 5000, None),
        ("٣", None),
        ("Tue, 32 Jan 2030 00:02:00 GMT", None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    assert parse_retry_after(value, START) == expected


@given(st.text() | st.text(string.digits + " :,-+JanMoGT"))
def test_any_text_is_a_wait_or_none(value: str) -> None:
    seconds = parse_retry_after(value, START)
    assert seconds is None or seconds >= 0
    when = parse_http_date(value)
    assert when is None or when.tzinfo is not None
