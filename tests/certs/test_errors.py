"""The exceptions that led to an error."""

import ssl

from certs.errors import causes


def test_the_innermost_cause_is_the_last() -> None:
    inner, middle, outer = OSError("inner"), ValueError("middle"), RuntimeError("outer")
    outer.__cause__, middle.__context__ = middle, inner
    assert list(causes(outer)) == [outer, middle, inner]


def test_causes_include_the_members_of_a_group() -> None:
    one, two = OSError("one"), ssl.SSLError("two")
    two.__cause__ = KeyError("why")
    group = ExceptionGroup("both", [one, two])
    assert list(causes(group)) == [group, one, two, two.__cause__]
