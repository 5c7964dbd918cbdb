"""The list of -verify-client-file: the node keys that may use the relay.

    # the office
    nodekey:0123…cdef   printer          # the label is "printer"
    nodekey:4567…89ab

One key a line, `nodekey:` and 64 hex digits, then any label; `#` begins a comment. A file with
anything else in it, or with no key, is refused as a whole: half a list would refuse the
clients of the other half, and a mistyped key would be noticed late.
"""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from certs.changes import ChangeDetector
from certs.files import open_regular
from certs.ownership import warn_if_swappable
from derp.admission.model import Outcome, Question, Verdict
from derp.errors import DerperError, ReloadError
from derp.wire.keys import KeyFormatError, parse_node_public

MAX_SIZE: Final = 16 << 20
"""Bytes of the largest list that is read: about 200,000 keys."""

NEWLINE: Final = re.compile(r"\r\n|\r|\n")
"""What ends a line."""
FLAG: Final = "-verify-client-file"


@attrs.frozen
class Found:
    """A list as it was read."""

    data: bytes
    status: os.stat_result
    keys: Mapping[bytes, str]
    """The label of each key."""


class ListFormError(ValueError):
    """A text is not a list; the message gives the number of the line, and quotes nothing."""


def parse(text: str) -> dict[bytes, str]:
    """Return the label of each key in a list. Raises ListFormError."""
    keys: dict[bytes, str] = {}
    for number, line in enumerate(NEWLINE.split(text), 1):
        entry = line.partition("#")[0].split(maxsplit=1)
        if not entry:
            continue
        label = entry[1].strip() if len(entry) > 1 else ""
        error = ListFormError(
            f"line {number}: want one key, nodekey: and 64 hex digits, then a label if you like; "
            f"a comment begins with #"
        )
        if "nodekey:" in label:
            raise error
        try:
            key = parse_node_public(entry[0])
        except KeyFormatError:
            raise error from None
        keys[key] = label
    return keys


def decode(data: bytes) -> str:
    """Return the text of a list; what is not UTF-8, as in a label, does not matter."""
    return data.decode("utf-8-sig", "replace")


def load(path: Path, failure: type[DerperError] = ReloadError) -> Mapping[bytes, str]:
    """Read the list at `path`; warn if other users could replace it. Blocks. Raises `failure`."""
    keys = read(path, failure).keys
    warn_if_swappable(path)
    if not keys:
        # More likely a full disk or a mistake than the intent to refuse all clients.
        raise failure(f"{FLAG} {str(path)!r}: no key in it; want at least one node key")
    return keys


def read(path: Path, failure: type[DerperError]) -> Found:
    """Read the list at `path`, which may have no key. Blocks. Raises `failure`."""
    try:
        with open_regular(path) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(MAX_SIZE + 1)
    except OSError as error:
        raise failure(
            f"{FLAG} {str(path)!r}: {error.strerror}; want a file with a node key a line"
        ) from error
    if len(data) > MAX_SIZE:
        raise failure(f"{FLAG} {str(path)!r}: want a list of at most {MAX_SIZE >> 20} MiB")
    try:
        return Found(data, status, parse(decode(data)))
    except ListFormError as error:
        raise failure(f"{FLAG} {str(path)!r}: {error}") from None


class AllowList:
    """The list in force, a source without I/O."""

    name = "file"

    def __init__(self, path: Path, keys: Mapping[bytes, str]) -> None:
        self.path = path
        self.keys = keys
        self._change = ChangeDetector((path,))

    def check(self, question: Question) -> Verdict:
        """Return ALLOWED for a key in the list, REFUSED for any other."""
        if question.key in self.keys:
            return Verdict(Outcome.ALLOWED, self.name)
        return Verdict(Outcome.REFUSED, self.name, f"not in {FLAG}")

    def read_changed(self, *, at_once: bool = False) -> Mapping[bytes, str] | None:
        """Return the list in the file if it is not the one in force, else None. Blocks.

        A changed file may be half written, so it is read only when two successive calls find the
        same state; with `at_once` the first call reads it. Raises ReloadError once for each state.
        """
        keys = self._change.read(partial(load, self.path), ReloadError, at_once=at_once)
        return None if keys == self.keys else keys
