"""A change written into the list of node keys: whole or not at all, with its mode and owner."""

import time
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from certs.wholefile import write_whole
from derp.admission.allowlist import Found, ListFormError, decode, parse, read
from derp.admission.listedit import ListChange
from derp.errors import ListNotWritten
from derp.files import rewrite
from derp.net.oserrors import reason

NEW_MODE: Final = 0o644
"""The mode of a list that is made: the relay may be another user, and node keys are no secret."""
_HEADER: Final = "# Who may use the relay: a node key a line, then a label.\n"


@attrs.frozen
class Written:
    """A list after a change."""

    keys: Mapping[bytes, str]
    """All that it has, with their labels."""
    added: tuple[bytes, ...] = ()
    """The keys that it had not before."""
    removed: tuple[bytes, ...] = ()
    """The keys that it has no longer."""


class ListRewriter:
    """The writer of changes into the list at `path`. One thread at a time may use it."""

    def __init__(self, path: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self._file = rewrite.Rewriter(
            path, partial(read, path, ListNotWritten), ListNotWritten, wait
        )

    def write(self, change: ListChange) -> Written:
        """Write a change into the list; return what it says then. Blocks.

        Raises ListNotWritten; then the file is as it was. So it is with the removal of its last
        key: a list without a key is an error at the relay's start.
        """
        return self._file.edit(partial(self._changed, change))

    def create(self, change: ListChange) -> Written | None:
        """Make a list that says no more than `change`. Blocks. Raises ListNotWritten.

        Returns None if there is a file already.
        """
        text = change.applied_to(_HEADER)
        try:
            if not write_whole(self.path, text.encode(), mode=NEW_MODE, replace=False):
                return None
        except OSError as error:
            raise ListNotWritten(f"{self.path} can't be made: {reason(error)}") from error
        return Written(parse(text), (*change.add,))

    def _changed(self, change: ListChange, found: Found) -> tuple[bytes, Written]:
        bom = BOM_UTF8 if found.data.startswith(BOM_UTF8) else b""
        # What is not UTF-8 stays as it is.
        text = found.data.removeprefix(bom).decode(errors="surrogateescape")
        data = bom + change.applied_to(text).encode(errors="surrogateescape")
        before, keys = found.keys, _parse(self.path, data)
        added = [key for key in change.add if key not in before]
        removed = [key for key in before if key in change.remove]
        if keys.keys() != {*before, *added} - {*removed}:
            raise ListNotWritten(f"{self.path} would say something else with it, too")
        if removed and not keys:
            raise ListNotWritten(
                f"no other key is in {self.path}, and with none the relay would not take it"
            )
        return data, Written(keys, (*added,), (*removed,))


def _parse(path: Path, data: bytes) -> Mapping[bytes, str]:
    try:
        return parse(decode(data))
    except ListFormError as error:
        raise ListNotWritten(f"{path} would have a mistake with it: {error}") from None
