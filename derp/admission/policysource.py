"""The policy of -policy as a source of verdicts.

`deny` refuses whatever the other sources say, and `allow` admits like the allow-list. Of a key with
neither, the policy says nothing.
"""

from functools import partial
from pathlib import Path
from typing import Final

from certs.changes import ChangeDetector
from derp import log
from derp.admission.model import Outcome, Question, Verdict
from derp.errors import ReloadError
from derp.policy.file import load
from derp.policy.model import Policy, Usage

NAME: Final = "policy"
ALLOWED: Final = Verdict(Outcome.ALLOWED, NAME)

logger = log.get("admit")


class PolicySource:
    """The policy in force; a source without I/O."""

    name = NAME

    def __init__(self, path: Path, policy: Policy, usage: Usage | None = None) -> None:
        """Without `usage`, no quota holds."""
        self.path = path
        self.policy = policy
        self.usage = usage
        self.forgets = False
        """Whether `usage` counts anew at each start of the relay."""
        self._change = ChangeDetector((path,))

    def check(self, question: Question) -> Verdict | None:
        """Return the verdict on a key; None if the policy leaves it to the other sources."""
        entry = self.policy.of(question.key)
        if (reason := entry.refusal(question.key, self.usage)) is not None:
            return Verdict(Outcome.REFUSED, self.name, reason)
        return ALLOWED if entry.allowed else None

    def read_changed(self, *, at_once: bool = False) -> Policy | None:
        """Return the new policy if the file has changed, else None. As AllowList.read_changed."""
        read = partial(load, self.path, ReloadError)
        policy = self._change.read(read, ReloadError, at_once=at_once)
        return None if policy == self.policy else policy

    def announce(self, event: str) -> None:
        """Log what is in force."""
        entries = self.policy.entries.values()
        logger.info(
            event,
            entries=len(entries),
            allowed=sum(entry.allowed is True for entry in entries),
            denied=sum(entry.allowed is False for entry in entries),
            others="denied" if self.policy.default.allowed is False else "as the other sources say",
        )
        if self.policy.has_quotas and self.forgets:
            logger.warning(
                "the quotas count anew at each start of the relay; "
                "-accounts FILE keeps what each key has used"
            )
