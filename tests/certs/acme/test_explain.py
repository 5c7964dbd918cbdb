import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.acme.explain import printable


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
