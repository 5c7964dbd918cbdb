"""A change written into the policy file: whole or not at all, with its mode, owner and comments."""

import time
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial
from pathlib import Path

from derp.errors import PolicyNotWritten
from derp.files import rewrite
from derp.policy.change import Change
from derp.policy.document import PolicyFormError, parse
from derp.policy.edit import NotEditable, edited
from derp.policy.file import Found, read
from derp.policy.model import Policy


class Rewriter:
    """The writer of changes into the file at `path`. One thread at a time may use it."""

    def __init__(self, path: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self._path = path
        self._file = rewrite.Rewriter(
            path, partial(read, path, PolicyNotWritten), PolicyNotWritten, wait
        )

    def write(self, change: Change) -> Policy:
        """Write a change into the file; return what the file says then. Blocks.

        Raises PolicyNotWritten; then the file is as it was.
        """
        return self._file.edit(partial(self._changed, change))

    def _changed(self, change: Change, found: Found) -> tuple[bytes, Policy]:
        path = self._path
        data = _edited(path, found.data, change)
        if data == found.data:
            return data, found.policy
        try:
            policy = parse(data)
        except PolicyFormError as error:
            raise PolicyNotWritten(f"{path} would have a mistake with it: {error}") from None
        if not change.explains(found.policy, policy):
            raise PolicyNotWritten(f"{path} would say something else with it, too")
        return data, policy


def _edited(path: Path, data: bytes, change: Change) -> bytes:
    bom = BOM_UTF8 if data.startswith(BOM_UTF8) else b""
    text = data.removeprefix(bom).decode()
    try:
        return bom + edited(text, change.key, change.assignments).encode()
    except NotEditable as error:
        raise PolicyNotWritten(f"{path} can't be edited: {error}") from None
