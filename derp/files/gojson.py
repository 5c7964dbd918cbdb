"""JSON files of the Go derper, read as Go's encoding/json reads them. Pure.

A file holds one object. Field names match in any case; unknown fields are passed over; of a
repeated field the last counts, except that null changes nothing.
"""

import json
from collections.abc import Iterable


class JSONFormError(ValueError):
    """A file holds something else than it should. The message repeats nothing of it."""


class _Pairs(list[tuple[str, object]]):
    """One JSON object, in the order of the text."""


def read_fields(data: bytes, names: Iterable[str]) -> dict[str, object]:
    """Return the values of those of `names` that the object in `data` has.

    Numbers without fraction and exponent are int, all others float. Raises JSONFormError.
    """
    try:
        value = json.loads(
            data.decode("utf-8", "replace"),
            object_pairs_hook=_Pairs,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JSONFormError(f"not JSON ({where})" if data.strip() else "empty") from None
    except (ValueError, RecursionError):
        raise JSONFormError("not JSON that Go would read") from None
    if value is None:
        return {}
    if not isinstance(value, _Pairs):
        raise JSONFormError("not a JSON object")
    by_folded_name = {name.casefold(): name for name in names}
    fields = {}
    for key, field in value:
        name = by_folded_name.get(key.casefold())
        if name is not None and field is not None:
            fields[name] = field
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
