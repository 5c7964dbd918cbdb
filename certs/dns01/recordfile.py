"""The records that are set, on disk: those of an order that was cut off are removed later.

A JSON list in -certdir, which only the owner can read. Who writes it holds the lock for orders.
"""

import json
from pathlib import Path
from typing import Any, Final

from certs.dns01.record import Place, PlacedRecord, Record
from certs.errors import IssueError
from certs.files import open_regular
from certs.wholefile import write_whole

NAME: Final = ".acme.records"
MAX_RECORDS: Final = 200
"""Most records that are remembered; the oldest are forgotten first."""
_MAX_SIZE: Final = 1 << 20
_FIELDS: Final = ("provider", "domain", "value", "name", "zone", "output")


class RecordFile:
    """The record file in one -certdir."""

    def __init__(self, certdir: Path) -> None:
        self.path = certdir / NAME

    def read(self) -> list[PlacedRecord]:
        """Return the records that may be set, the oldest first; none for a damaged file."""
        try:
            with open_regular(self.path) as stream:
                return [_from_json(entry) for entry in json.loads(stream.read(_MAX_SIZE))]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return []

    def add(self, placed: PlacedRecord) -> None:
        """Remember a record that is about to be set, or was. Raises IssueError."""
        others = [each for each in self.read() if not _is_same(each, placed)]
        self._write([*others, placed][-MAX_RECORDS:])

    def forget(self, placed: PlacedRecord) -> None:
        """Forget a record that is removed. Raises IssueError."""
        self._write([each for each in self.read() if not _is_same(each, placed)])

    def _write(self, records: list[PlacedRecord]) -> None:
        try:
            if records:
                content = json.dumps([_to_json(each) for each in records]).encode("ascii")
                write_whole(self.path, content, mode=0o600)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise IssueError(
                f"{self.path}: can't note which DNS records are set ({error.strerror}); "
                f"make {self.path.parent} a directory that the relay can write to"
            ) from error


def _is_same(one: PlacedRecord, other: PlacedRecord) -> bool:
    return (one.record, one.place, one.provider) == (other.record, other.place, other.provider)


def _to_json(placed: PlacedRecord) -> dict[str, Any]:
    record, place = placed.record, placed.place
    texts = placed.provider, record.domain, record.value, place.name, place.zone, placed.output
    return dict(zip(_FIELDS, texts, strict=True))


def _from_json(entry: Any) -> PlacedRecord:
    """Return the record in an entry. Raises LookupError or TypeError for what is none."""
    texts = {name: entry[name] for name in _FIELDS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("not a text")
    return PlacedRecord(
        provider=texts["provider"],
        record=Record(texts["domain"], texts["value"]),
        place=Place(texts["name"], texts["zone"]),
        output=texts["output"],
    )
