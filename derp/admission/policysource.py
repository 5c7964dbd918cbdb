"""The policy as a source of verdicts: what -policy says, and what operators have changed since.

`deny` refuses whatever the other sources say, and `allow` admits like the allow-list. Of a key with
neither, the policy says nothing.

A change that stands in the file is in force because of that. One that could not be written stays in
force until the relay stops, also after the file is read again.
"""

from functools import partial
from pathlib import Path
from typing import Final

from certs.changes import ChangeDetector
from derp import log
from derp.admission.model import Outcome, Question, Verdict
from derp.errors import ReloadError
from derp.policy.change import Change
from derp.policy.file import load
from derp.policy.model import Policy, Usage

NAME: Final = "policy"
ALLOWED: Final = Verdict(Outcome.ALLOWED, NAME)

logger = log.get("admit")


class PolicySource:
    """The policy in force; a source without I/O."""

    name = NAME

    def __init__(self, path: Path | None, policy: Policy, usage: Usage | None = None) -> None:
        """Take what the file at `path` says, None for no file; without `usage`, no quota holds."""
        self.path = path
        self.policy = policy
        self.usage = usage
        self.usage_in_memory = False
        """Whether `usage` counts anew at each start of the relay."""
        self.in_file = policy
        """What the file says."""
        self._changes: dict[object, Change] = {}
        """Those that the file does not say."""
        self._detector = ChangeDetector(() if path is None else (path,))

    def check(self, question: Question) -> Verdict | None:
        """Return the verdict on a key; None if the policy leaves it to the other sources."""
        entry = self.policy.of(question.key)
        if (refused := entry.refusal(question.key, self.usage)) is not None:
            return Verdict(
                Outcome.REFUSED, self.name, refused.reason, over_quota=refused.over_quota
            )
        return ALLOWED if entry.allowed else None

    def read_changed(self, *, at_once: bool = False) -> Policy | None:
        """Return what the file says if it has changed, else None. As AllowList.read_changed."""
        if self.path is None:
            return None
        read = partial(load, self.path, ReloadError)
        in_file = self._detector.read(read, ReloadError, at_once=at_once)
        return None if in_file == self.in_file else in_file

    def put(self, in_file: Policy) -> None:
        """Put what the file says in force, with all changes that it does not say."""
        self.in_file = in_file
        self._changes = {
            subject: change
            for subject, change in self._changes.items()
            if not change.is_in(in_file)
        }
        policy = in_file
        for change in self._changes.values():
            policy = change.applied_to(policy)
        self.policy = policy

    def change(self, change: Change, in_file: Policy | None) -> None:
        """Put a change in force; `in_file`: the file's policy with it, None if not written."""
        self._changes.pop(change.subject, None)
        if in_file is None:
            self._changes[change.subject] = change
        self.put(self.in_file if in_file is None else in_file)

    def announce(self, event: str) -> None:
        """Log what is in force."""
        entries = self.policy.entries.values()
        logger.info(
            event,
            entries=len(entries),
            allowed=sum(entry.allowed is True for entry in entries),
            denied=sum(entry.allowed is False for entry in entries),
            by_command=len(self._changes) or None,
            others="denied" if self.policy.default.allowed is False else "as the other sources say",
        )
        if self.policy.has_quotas and self.usage_in_memory:
            logger.warning(
                "the quotas count anew at each start of the relay; "
                "-accounts FILE keeps what each key has used"
            )
