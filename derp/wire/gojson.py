"""JSON objects, read as Go's encoding/json reads them into a struct. Sans-I/O.

Field names match in any case; unknown fields are skipped; of a repeated field the last counts,
except that null changes nothing. Invalid UTF-8 is replaced. Unlike in Go, a value nested too deep
for Python's parser is an error.
"""

import json
from collections.abc import Iterable
from typing import Final


class JSONFormError(ValueError):
    """The text is not the JSON that it should be. The message quotes none of it."""


class NotAnObject(JSONFormError):
    """The text is JSON, but not an object."""


class _Pairs(list[tuple[str, object]]):
    """One JSON object, in the order of the text."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_refuse_constant)


def read_fields(data: bytes, names: Iterable[str]) -> dict[str, object]:
    """Return the values, other than null, that the object in `data` has for `names`.

    Numbers without fraction and exponent are int, all others float. Raises JSONFormError.
    """
    return {name: value for name, value in read_pairs(data, names) if value is not None}


def read_pairs(
    data: bytes, names: Iterable[str], *, first: bool = False
) -> list[tuple[str, object]]:
    """Return, in order, each field of the object in `data` that is one of `names`, null included.

    Names are spelled as in `names`. With `first`, only the first value is read (Go: json.Decoder);
    else nothing may follow it (Go: json.Unmarshal). null is an object without fields. Raises
    JSONFormError.
    """
    text = data.decode("utf-8", "replace")
    try:
        if first:
            value, _ = _DECODER.raw_decode(text.lstrip(" \t\r\n"))
        else:
            value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JSONFormError(f"not JSON ({where})" if data.strip() else "empty") from None
    except (ValueError, RecursionError):
        raise JSONFormError("not JSON that Go would read, or nested too deep") from None
    if value is None:
        return []
    if not isinstance(value, _Pairs):
        raise NotAnObject("not a JSON object")
    by_folded = {name.casefold(): name for name in names}
    return [(by_folded[key.casefold()], item) for key, item in value if key.casefold() in by_folded]
