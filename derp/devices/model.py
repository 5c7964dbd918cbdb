"""The devices that an API lists. Sans-I/O."""

from collections.abc import Mapping

import attrs


@attrs.frozen
class Devices:
    """The devices of one list that may use the relay."""

    expiries: Mapping[bytes, float] = attrs.field(repr=False)
    """Unix time at which each node key expires; infinite for never."""
    listed_at: float
    """Unix time, in seconds, at which the list was asked for."""

    def usable(self, now: float) -> set[bytes]:
        """Return the keys that have not expired at `now`, in Unix time."""
        return {key for key, expires in self.expiries.items() if now < expires}
