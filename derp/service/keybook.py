"""The node keys that a relay knows: who is allowed or denied, by what, and under which label."""

from collections.abc import Iterator
from typing import Final

import attrs

from derp.admission.checker import Checker
from derp.admission.policysource import PolicySource
from derp.policy.model import Policy

BY_COMMAND: Final = "command"
"""The source of what operators have changed, and no file says."""


@attrs.frozen
class KeyStatus:
    """A key in the policy or in a list: its verdict there."""

    key: bytes
    """The node key, 32 bytes."""
    label: str
    """Empty for none."""
    allowed: bool
    """Whether it is admitted, or else denied."""
    source: str
    """`policy`, BY_COMMAND, `file`, or the name of a list of devices."""


@attrs.frozen
class KeyBook:
    """The policy and the lists of a relay, in the process that has them."""

    source: PolicySource
    checker: Checker | None = None

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.source.policy

    def label_of(self, key: bytes) -> str:
        """Return the label of a key: the policy's, else that of the allow-list, else none."""
        if label := self.policy.of(key).label:
            return label
        allowlist = None if self.checker is None else self.checker.sources.allowlist
        return "" if allowlist is None else allowlist.keys.get(key, "")

    def labels(self) -> dict[bytes, str]:
        """Return the keys that the policy or the allow-list has, with their labels."""
        allowlist = None if self.checker is None else self.checker.sources.allowlist
        found = {} if allowlist is None else {**allowlist.keys}
        for key, entry in self.policy.entries.items():
            found[key] = entry.label or found.get(key, "")
        return found

    def statuses(self) -> Iterator[KeyStatus]:
        """Yield what each source says of each key that it has, in the order in which they count."""
        in_file = self.source.in_file.entries
        for key, entry in self.policy.entries.items():
            if entry.allowed is not None:
                is_in_file = key in in_file and in_file[key].allowed is entry.allowed
                name = self.source.name if is_in_file else BY_COMMAND
                yield KeyStatus(key, self.label_of(key), entry.allowed, name)
        if self.checker is None:
            return
        sources = self.checker.sources
        if sources.allowlist is not None:
            for key in sources.allowlist.keys:
                yield KeyStatus(key, self.label_of(key), True, sources.allowlist.name)
        for source in sources.devices:
            if source.devices is not None:
                for key in source.devices.usable(source.wall()):
                    yield KeyStatus(key, self.label_of(key), True, source.name)
