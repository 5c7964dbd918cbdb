"""The elements of one array in a JSON object that comes in pieces. Sans-I/O.

    {"devices": [{…}, {…}], …}

A tailnet's list may have many MiB. Each element is parsed by itself, so that neither the text nor
what is made of it is ever whole in memory, and no call takes long: a thread would hold the
interpreter's lock for as long as one call of the parser.
"""

import codecs
import enum
import json
import re
from collections.abc import Iterator
from typing import Any, Final

MAX_VALUE: Final = 256 << 10
"""Characters of the longest element, and of any other value in the object."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER_TO_THE_END: Final = re.compile(r"[-+.0-9eE]*\Z")


class AnswerFormError(ValueError):
    """An answer does not have the form that is expected; the message quotes nothing of it."""


class _Expects(enum.Enum):
    """The part that comes next, after spaces."""

    OBJECT = enum.auto()
    FIRST_NAME = enum.auto()
    NAME = enum.auto()
    COLON = enum.auto()
    VALUE = enum.auto()
    FIRST_ELEMENT = enum.auto()
    ELEMENT = enum.auto()
    AFTER_ELEMENT = enum.auto()
    AFTER_VALUE = enum.auto()
    NOTHING = enum.auto()


class ArrayReader:
    """The reader of the array `name` in an object; where it is null or absent, no elements."""

    def __init__(self, name: str) -> None:
        self._array = name
        self._name = ""
        self._expects = _Expects.OBJECT
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._json = json.JSONDecoder()
        self._text = ""
        # A value that is not whole is tried again when there is twice as much of it.
        self._try_at = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the elements that are complete now; the caller must exhaust it.

        Raises AnswerFormError.
        """
        self._add(data)
        if len(self._text) >= self._try_at:
            yield from self._elements(at_end=False)

    def finish(self) -> Iterator[Any]:
        """Yield the elements that are left, at the end of the data. Raises AnswerFormError."""
        self._add(b"", at_end=True)
        yield from self._elements(at_end=True)
        if self._expects is not _Expects.NOTHING:
            raise AnswerFormError("it is cut off")

    def _add(self, data: bytes, *, at_end: bool = False) -> None:
        try:
            self._text += self._decode(data, at_end)
        except UnicodeDecodeError:
            raise AnswerFormError("it is not UTF-8") from None

    def _elements(self, *, at_end: bool) -> Iterator[Any]:
        text, position = self._text, 0
        while (position := _after_space(text, position)) < len(text):
            if (following := self._step(text[position])) is not None:
                self._expects = following
                position += 1
                continue
            try:
                value, end = self._json.raw_decode(text, position)
            except RecursionError:
                raise AnswerFormError("it is nested too deeply") from None
            except ValueError:
                break
            is_number = isinstance(value, int | float)
            if end == len(text) or (is_number and _NUMBER_TO_THE_END.match(text, end)):
                # It may be the beginning of a longer number; something follows in any case.
                break
            position = end
            if self._expects is _Expects.ELEMENT:
                self._expects = _Expects.AFTER_ELEMENT
                yield value
            elif self._expects is _Expects.NAME:
                self._name = value
                self._expects = _Expects.COLON
            else:
                self._expects = _Expects.AFTER_VALUE
                if self._name == self._array and value is not None:
                    raise AnswerFormError(f"{self._array} is no array")
        self._text = text[position:]
        self._try_at = 2 * len(self._text)
        if len(self._text) > MAX_VALUE and not at_end:
            raise AnswerFormError("a value is too long, or no JSON")

    def _step(self, char: str) -> _Expects | None:
        """Return what comes after a character that begins no value; None if it begins one.

        Raises AnswerFormError.
        """
        expects = self._expects
        following = _STEPS.get((expects, char))
        if following is _Expects.FIRST_ELEMENT and self._name != self._array:
            following = None
        if following is None:
            if expects is _Expects.FIRST_ELEMENT:
                self._expects = _Expects.ELEMENT
            elif char == '"' and expects in {_Expects.FIRST_NAME, _Expects.NAME}:
                self._expects = _Expects.NAME
            elif expects not in {_Expects.VALUE, _Expects.ELEMENT}:
                raise AnswerFormError("it is no JSON object")
        return following


_STEPS: Final = {
    (_Expects.OBJECT, "{"): _Expects.FIRST_NAME,
    (_Expects.FIRST_NAME, "}"): _Expects.NOTHING,
    (_Expects.COLON, ":"): _Expects.VALUE,
    (_Expects.VALUE, "["): _Expects.FIRST_ELEMENT,
    (_Expects.FIRST_ELEMENT, "]"): _Expects.AFTER_VALUE,
    (_Expects.AFTER_ELEMENT, ","): _Expects.ELEMENT,
    (_Expects.AFTER_ELEMENT, "]"): _Expects.AFTER_VALUE,
    (_Expects.AFTER_VALUE, ","): _Expects.NAME,
    (_Expects.AFTER_VALUE, "}"): _Expects.NOTHING,
}


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()
