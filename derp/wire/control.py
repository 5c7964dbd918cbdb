"""Requests and answers of the control socket: one JSON object a line. Sans-I/O.

    {"v": 1, "do": "clients"}                   {"v": 1, "clients": [{…}, …], "more": true,
                                                 "silent": []}
                                                {"v": 1, "clients": [{…}, …], "more": false,
                                                 "silent": []}
    {"v": 1, "do": "kick", "key": KEY}          {"v": 1, "done": "one sentence", "ended": 2}
    {"v": 1, "do": "limit", "key": KEY,         {"v": 1, "error": "one line"}
     "rate": "10 Mbit/s"}
    {"v": 1, "do": "keys"}                      {"v": 1, "keys": [{…}, …], "more": false}
    {"v": 1, "do": "refused"}                   {"v": 1, "refused": [{…}, …], "more": false,
                                                 "silent": []}
    {"v": 1, "do": "list", "keys":              {"v": 1, "done": "one sentence",
     {"nodekey:…": "laptop", …}}                 "added": ["nodekey:…", …]}

KEY is a node key, the beginning of one, or a label; a rate of null takes the key's own one back.
With `deny` and `allow`, a "label" is the key's new one. `list` adds keys to the allow-list.
`silent` has the numbers of the workers that did not answer, whose clients or refusals are missing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from derp.errors import ControlRefused

VERSION: Final = 1
MAX_REQUEST: Final = 4096
"""Bytes of the longest request, with its newline."""
MAX_ANSWER: Final = 1 << 20
"""The same for an answer."""

CLIENTS: Final = "clients"
KEYS: Final = "keys"
REFUSED: Final = "refused"
LISTS: Final = (CLIENTS, KEYS, REFUSED)
"""What is answered by a list, in pages."""
FILL: Final = "list"
STEERING: Final = ("kick", "deny", "allow", "limit")
"""What is done to one key."""

_ALL: Final = (*LISTS, FILL, *STEERING)
_LABELLED: Final = ("deny", "allow")

_OTHER: Final = (
    "what answers is no derper, or one of another version; use the derper command that the relay "
    "was installed with"
)
_WANT: Final = 'want a line such as {"v": 1, "do": "clients"}'


@attrs.frozen
class Request:
    """A request."""

    do: str
    """One of LISTS or STEERING, or FILL."""
    key: str = ""
    """As the operator wrote it; empty but for STEERING."""
    rate: str | None = None
    """With `limit` only."""
    label: str | None = None
    """With `deny` and `allow` only; None for none that is new."""
    keys: Mapping[str, str] = attrs.field(factory=dict)
    """With FILL only: labels, which may be empty, by the text of the key."""

    def to_line(self) -> bytes:
        """Return the request as it is sent."""
        fields: dict[str, Any] = {"v": VERSION, "do": self.do}
        if self.do in STEERING:
            fields["key"] = self.key
        if self.do == "limit":
            fields["rate"] = self.rate
        if self.label is not None:
            fields["label"] = self.label
        if self.do == FILL:
            fields["keys"] = {**self.keys}
        return to_line(fields)

    @classmethod
    def from_line(cls, line: bytes) -> "Request":
        """Undo `to_line`. Raises ControlRefused."""
        fields = _object(line)
        if fields is None:
            raise ControlRefused(_WANT)
        if fields.get("v") != VERSION:
            raise ControlRefused(
                f"this relay speaks version {VERSION} of its control protocol; "
                "use the derper command that it was installed with"
            )
        do, key, rate = fields.get("do"), fields.get("key", ""), fields.get("rate")
        if do not in _ALL:
            raise ControlRefused(f"want one of {', '.join(_ALL)}")
        if not isinstance(key, str) or (do in STEERING) != bool(key):
            raise ControlRefused(f"{do}: want {'a' if do in STEERING else 'no'} key")
        if not isinstance(rate, str | None) or (rate is not None and do != "limit"):
            raise ControlRefused(f"{do}: want {'a rate as text' if do == 'limit' else 'no rate'}")
        label, keys = fields.get("label"), fields.get("keys", {})
        if not isinstance(label, str | None) or (label is not None and do not in _LABELLED):
            want = "a label as text" if do in _LABELLED else "no label"
            raise ControlRefused(f"{do}: want {want}")
        if not isinstance(keys, dict) or (do == FILL) != bool(keys):
            raise ControlRefused(f"{do}: want {'keys with labels' if do == FILL else 'no keys'}")
        if not all(isinstance(each, str) for each in keys.values()):
            raise ControlRefused(f"{do}: want labels as text")
        return cls(do, key, rate, label, keys)


@attrs.frozen
class Command:
    """A command of an operator about the clients of a key."""

    action: str
    """One of STEERING."""
    key: bytes
    """A node key, 32 bytes."""
    rate: str | None = None
    """With `limit` only: as in the policy file, or None for no limit of the key's own."""
    label: str | None = None
    """With `deny` and `allow` only: the key's new label, or None to keep what there is."""


def to_line(fields: dict[str, Any]) -> bytes:
    """Return an answer or a request as it is sent."""
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":")).encode() + b"\n"


def parse_list(line: bytes, do: str = CLIENTS) -> tuple[list[dict[str, Any]], bool, list[int]]:
    """Return the rows in an answer, whether more come, and which workers did not answer.

    `do` is what was asked for, one of LISTS. Raises ControlRefused.
    """
    fields = _answer(line)
    rows = fields.get(do)
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise ControlRefused(_OTHER)
    silent = fields.get("silent", [])
    if not isinstance(silent, list) or not all(isinstance(each, int) for each in silent):
        raise ControlRefused(_OTHER)
    return rows, bool(fields.get("more")), silent


def missing_text(silent: Sequence[int], what: str = "clients") -> str:
    """Return that `what` workers have is missing, as they did not answer; empty for none."""
    if not silent:
        return ""
    whose = "its" if len(silent) == 1 else "their"
    return f"{workers_text(silent)} did not answer, and {whose} {what} are missing"


def workers_text(numbers: Sequence[int]) -> str:
    """Return "worker 1", "workers 0 and 2"."""
    *first, last = map(str, numbers)
    return f"workers {', '.join(first)} and {last}" if first else f"worker {last}"


def parse_done(line: bytes) -> str:
    """Return the sentence that says what was done. Raises ControlRefused."""
    sentence = _answer(line).get("done")
    if not isinstance(sentence, str):
        raise ControlRefused(_OTHER)
    return sentence


def parse_added(line: bytes) -> list[str]:
    """Return the keys that FILL has added. Raises ControlRefused."""
    keys = _answer(line).get("added")
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
        raise ControlRefused(_OTHER)
    return keys


def _answer(line: bytes) -> dict[str, Any]:
    """Return the fields of an answer. Raises ControlRefused if it is an error, or no answer."""
    fields = _object(line) or {}
    if isinstance(error := fields.get("error"), str):
        raise ControlRefused(error)
    if fields.get("v") != VERSION:
        raise ControlRefused(_OTHER)
    return fields


class Lines:
    """The lines of a stream that comes in pieces."""

    def __init__(self, longest: int) -> None:
        """Take lines of at most so many bytes, with the newline."""
        self._longest = longest
        self._received = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._received += data

    def next(self) -> bytes | None:
        """Return the next whole line, without its newline; None while there is none.

        Raises ControlRefused for one that is too long.
        """
        stop = self._received.find(b"\n", self._searched, self._longest)
        if stop < 0:
            self._searched = len(self._received)
            if self._searched >= self._longest:
                raise ControlRefused(f"want a line of at most {self._longest} bytes")
            return None
        line = bytes(self._received[:stop])
        del self._received[: stop + 1]
        self._searched = 0
        return line


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
