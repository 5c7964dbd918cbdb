"""The policy file or the list that a command's flags name, edited by the command itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from derp.admission import allowlist
from derp.admission.listedit import ListChange
from derp.admission.listrewrite import ListRewriter, Written
from derp.cli import procfs
from derp.cli.command_flags import Arguments
from derp.errors import (
    ListNotWritten,
    PolicyNotWritten,
    StartError,
    SteeringFailed,
    UsageError,
)
from derp.policy import file as policy_file
from derp.policy.change import Change
from derp.policy.model import EMPTY
from derp.policy.rewrite import Rewriter
from derp.service.keybook import KeyStatus
from derp.service.keynames import key_named
from derp.wire.keys import node_public_text

NOBODY_TOLD: Final = "no relay was told: one that runs with this file reads it within seconds"


@attrs.frozen
class KeyFiles:
    """The files; None for those that no flag names. Methods block, and raise StartError."""

    policy: Path | None
    allowlist: Path | None

    @classmethod
    def named_by(cls, arguments: Arguments) -> "KeyFiles":
        """Return the files that a command's flags and variables name."""
        settings = arguments.settings
        pid = int(str(settings["of"].value))

        def path(flag: str) -> Path | None:
            if not (text := str(settings[flag].value)):
                return None
            return Path(text) if Path(text).is_absolute() or not pid else _beside(pid, text)

        return cls(path("policy"), path("verify-client-file"))

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.policy is not None or self.allowlist is not None

    def key_named(self, text: str) -> bytes:
        """Return the key that `text` names: all of it, or a beginning or a label in a file."""
        try:
            return key_named(text, (), {status.key: status.label for status in self.statuses()})
        except SteeringFailed as error:
            raise StartError(str(error)) from None

    def statuses(self) -> list[KeyStatus]:
        """Return what the files say of the keys in them."""
        policy = EMPTY
        listed: Mapping[bytes, str] = {}
        if self.policy is not None:
            policy = policy_file.read(self.policy, StartError).policy
        if self.allowlist is not None and self.allowlist.exists():
            listed = allowlist.read(self.allowlist, StartError).keys
        return [
            KeyStatus(key, entry.label, entry.allowed, "policy")
            for key, entry in policy.entries.items()
            if entry.allowed is not None
        ] + [KeyStatus(key, label, True, "file") for key, label in listed.items()]

    def change(self, key: bytes, label: str | None, *, allowed: bool) -> str:
        """Allow or deny a key, in the policy if there is one; return what was done."""
        what = f"{node_public_text(key)} is {'allowed' if allowed else 'denied'}"
        if self.policy is not None:
            try:
                Rewriter(self.policy).write(Change(key, allowed=allowed, label=label))
            except PolicyNotWritten as error:
                raise StartError(str(error)) from error
            except ValueError as error:
                raise UsageError(f"label {label!r:.100}: {error}") from None
            return f"{what}, which stands in {self.policy} now"
        if (path := self.allowlist) is None:
            raise StartError("there is no file to write that into; give -verify-client-file FILE")
        if allowed:
            self.change_list(path, added(key, label))
            return f"{what}, which stands in {path} now"
        if not self.change_list(path, ListChange(remove=[key])).removed:
            raise StartError(
                f"{node_public_text(key)} is not in {path}; "
                "with -policy FILE it is denied whatever else admits it"
            )
        return f"{node_public_text(key)} is no longer in {path}"

    @staticmethod
    def change_list(path: Path, change: ListChange) -> Written:
        """Change the list at `path`, and make one that is not there yet."""
        rewriter = ListRewriter(path)
        try:
            if not path.exists() and change.add:
                return rewriter.create(change) or rewriter.write(change)
            return rewriter.write(change)
        except ListNotWritten as error:
            raise StartError(str(error)) from error


def added(key: bytes, label: str | None) -> ListChange:
    """Return the change that adds a key. Raises UsageError for a wrong label."""
    try:
        return ListChange({key: label})
    except ValueError as error:
        raise UsageError(f"label {label!r:.100}: {error}") from None


def _beside(pid: int, text: str) -> Path:
    """Return a path that is relative to a process's working directory."""
    return procfs.directory_of(pid) / text
