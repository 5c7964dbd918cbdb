"""The exceptions that led to an error, and the text of others in a message."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import causes, printable


def test_the_innermost_cause_is_the_last() -> None:
    inner, middle, outer = OSError("inner"), ValueError("middle"), RuntimeError("outer")
    outer.__cause__, middle.__context__ = middle, inner
    assert list(causes(outer)) == [outer, middle, inner]


def test_causes_include_the_members_of_a_group() -> None:
    one, two = OSError("one"), ssl.SSLError("two")
    two.__cause__ = KeyError("why")
    group = ExceptionGroup("both", [one, two])
    assert list(causes(group)) == [group, one, two, two.__cause__]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("as it is", "as it is"),
        ("  two\r\n\tlines ", "two lines"),
        ("\x1b[31mred\x00", "?[31mred?"),
        ("1234567890", "1234567890"),
        ("12345678901", "123456789\u2026"),
    ],
)
def test_printable(text, expected):
    assert printable(text, 10) == expected


@given(st.text())
def test_any_text_becomes_one_short_line(text):
    line = printable(text, 20)
    assert len(line) <= 20
    assert line.isprintable()
