"""An operator's change of what a policy says about one key. Sans-I/O."""

import json
from collections.abc import Mapping
from typing import Final

import attrs

from derp.policy import amounts, document
from derp.policy.document import rate_limit
from derp.policy.model import Entry, Policy

Assignments = Mapping[str, str | None]
"""The values of names in an entry, as in TOML; None for a name that is to be absent."""

_NO_RATE: Final = (None, amounts.UNLIMITED)


@attrs.frozen
class Change:
    """A key is allowed or denied; or, if `allowed` is None, gets a rate, or None for the default's.

    Raises ValueError for what is no rate or label, which says what would be right.
    """

    key: bytes
    """32 bytes."""
    allowed: bool | None = None
    rate: str | None = None
    """As in the policy file."""
    label: str | None = None
    """Beside `allowed`: a new label, None to keep what there is."""

    def __attrs_post_init__(self) -> None:
        if self.label is not None:
            document.label(self.label)
        if self.rate is not None:
            rate_limit(self.rate)

    @property
    def subject(self) -> tuple[bytes, bool]:
        """The subject of the change: a later one of the same subject takes its place."""
        return self.key, self.allowed is None

    @property
    def assignments(self) -> Assignments:
        """The assignments in the key's entry of the policy file with this change."""
        if self.allowed is not None:
            verdict = _ALLOWED if self.allowed else _DENIED
            return verdict if self.label is None else {**verdict, "label": _quoted(self.label)}
        if self.rate in _NO_RATE:
            # A burst without a rate is a mistake.
            return {"rate": None if self.rate is None else f'"{self.rate}"', "burst": None}
        return {"rate": f'"{self.rate}"'}

    def applied_to(self, policy: Policy) -> Policy:
        """Return the policy with this change."""
        entry = policy.of(self.key)
        if self.allowed is not None:
            label = entry.label if self.label is None else self.label
            entry = attrs.evolve(entry, allowed=self.allowed, label=label)
        elif self.rate is not None:
            entry = attrs.evolve(entry, limit=rate_limit(self.rate))
        elif self.key in policy.entries:
            entry = attrs.evolve(entry, limit=policy.default.limit)
        else:
            return policy
        return Policy({**policy.entries, self.key: entry}, policy.default)

    def is_in(self, policy: Policy) -> bool:
        """Return whether the entry of the key says so already."""
        entry = policy.entries.get(self.key)
        if entry is None:
            return self.allowed is None and self.rate is None
        if self.allowed is not None:
            return entry.allowed is self.allowed and self.label in {None, entry.label}
        return _rate(entry) == _rate(self.applied_to(policy).of(self.key))

    def explains(self, before: Policy, after: Policy) -> bool:
        """Return whether `after` is `before` with this change, and with nothing else."""
        if not self.is_in(after) or before.default != after.default:
            return False
        others = [{**each.entries} for each in (before, after)]
        for entries in others:
            entries.pop(self.key, None)
        return others[0] == others[1] and self._rest(before) == self._rest(after)

    def _rest(self, policy: Policy) -> Entry:
        """Return the entry of the key without what this change is about."""
        entry = policy.of(self.key)
        if self.allowed is not None:
            label = entry.label if self.label is None else ""
            return attrs.evolve(entry, allowed=None, label=label)
        return attrs.evolve(entry, limit=None)


_ALLOWED: Final[Assignments] = {"allow": "true", "deny": None}
_DENIED: Final[Assignments] = {"deny": "true", "allow": None}


def _quoted(text: str) -> str:
    """Return printable text as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False)


def _rate(entry: Entry) -> int:
    """Return the bytes a second of an entry; -1 where it leaves them to -rate-config."""
    return -1 if entry.limit is None else entry.limit.bytes_per_second
