"""The allow-list of a relay without a policy file: the keys that operators allow are in it."""

from pathlib import Path

import attrs
import trio

from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.listedit import ListChange
from derp.admission.listkeeper import ListRequest, change_list
from derp.errors import ListNotWritten, SteeringFailed
from derp.policy import document


@attrs.frozen
class KeyList:
    """The list, and the channel to its keeper."""

    allowlist: AllowList
    to_keeper: trio.MemorySendChannel[ListRequest]
    """To derp.admission.listkeeper."""

    @property
    def path(self) -> Path:
        """The path of the list."""
        return self.allowlist.path

    def label_of(self, key: bytes) -> str | None:
        """Return the label of a key; None if it has none that a policy can have, too."""
        try:
            return document.label(self.allowlist.keys.get(key, ""))
        except ValueError:
            return None

    async def add(self, key: bytes, label: str | None) -> None:
        """Add a key; with `label`, that is its label. Raises ListNotWritten and SteeringFailed."""
        try:
            change = ListChange({key: label})
        except ValueError as error:
            raise SteeringFailed(f"label {label!r:.100}: {error}") from None
        await change_list(self.to_keeper, change)

    async def remove(self, key: bytes) -> str:
        """Remove a key; return what came of it, as a part of a sentence. Raises SteeringFailed."""
        try:
            written = await change_list(self.to_keeper, ListChange(remove=[key]))
        except ListNotWritten as error:
            return f"; it may still be in {self.path}: {error}"
        return f"; it is no longer in {self.path}" if written.removed else ""


def has_list(checker: Checker | None) -> bool:
    """Return whether a relay has an allow-list."""
    return checker is not None and checker.sources.allowlist is not None


def list_to_steer(
    checker: Checker | None, to_keeper: trio.MemorySendChannel[ListRequest]
) -> KeyList | None:
    """Return the list to which allowed keys are added; None where they go into a policy file."""
    if checker is None or checker.sources.allowlist is None or checker.sources.policy is not None:
        return None
    return KeyList(checker.sources.allowlist, to_keeper)
