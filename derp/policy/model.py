"""The policy: an entry for each of some keys, and a default for all others. Sans-I/O."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs

from derp.accounts.counts import Period
from derp.files.ratelimit import NO_LIMIT, RateConfig


class Usage(Protocol):
    """The count of each key's bytes, over all processes of the relay."""

    def used(self, key: bytes, period: Period) -> int | None:
        """Return the bytes that `key` has sent and received in the current period.

        None where that is not known; then no quota holds. Called at each login, and for all
        connected clients when limits are put in force: it waits for nothing.
        """

    def until(self, period: Period) -> str:
        """Return the day on which the current period is over, as YYYY-MM-DD."""


@attrs.frozen
class Quota:
    """The bytes that a key may send and receive in a period, and what happens over them."""

    size: int
    """Bytes."""
    period: Period
    throttle: RateConfig | None
    """The rate limit over quota; None to refuse the key."""


@attrs.frozen
class Denial:
    """The reason for which a policy refuses a key."""

    reason: str
    """For the log."""
    over_quota: bool = False


@attrs.frozen
class Entry:
    """The policy for one key, or for all that have no entry; the defaults are filled in."""

    label: str = ""
    allowed: bool | None = None
    """True for `allow`, False for `deny`; None leaves it to the other sources."""
    limit: RateConfig | None = None
    """The rate limit; None leaves it to -rate-config."""
    quota: Quota | None = None
    """None for no quota."""
    group: str = ""
    """The group of -isolate; empty for that of the source that admits the key."""

    def over_quota(self, key: bytes, usage: Usage | None) -> bool:
        """Return whether `key` has used up its quota; never without `usage`."""
        if self.quota is None or usage is None:
            return False
        used = usage.used(key, self.quota.period)
        return used is not None and used >= self.quota.size

    def limit_for(self, key: bytes, usage: Usage | None, otherwise: RateConfig) -> RateConfig:
        """Return the rate limit of `key`: its own or `otherwise`, and over quota the throttle.

        A throttle never raises a limit.
        """
        limit = otherwise if self.limit is None else self.limit
        throttle = None if self.quota is None else self.quota.throttle
        if throttle is None or not self.over_quota(key, usage):
            return limit
        is_lower = limit == NO_LIMIT or throttle.bytes_per_second < limit.bytes_per_second
        return throttle if is_lower else limit

    def refusal(self, key: bytes, usage: Usage | None) -> Denial | None:
        """Return why `key` may not use the relay; None if the policy has nothing against it."""
        if self.allowed is False:
            return Denial("the key is denied")
        if self.quota is not None and self.quota.throttle is None and self.over_quota(key, usage):
            reason = f"over its quota for this {self.quota.period} in -policy"
            return Denial(reason, over_quota=True)
        return None


NOTHING: Final = Entry()


@attrs.frozen
class Policy:
    """The entry of each key that has one, and the default for all others."""

    entries: Mapping[bytes, Entry] = attrs.field(factory=dict)
    default: Entry = NOTHING

    def of(self, key: bytes) -> Entry:
        """Return what is said about a key."""
        return self.entries.get(key, self.default)

    @property
    def allowed(self) -> set[bytes]:
        """The keys that are admitted whatever the other sources say."""
        return {key for key, entry in self.entries.items() if entry.allowed}

    @property
    def has_quotas(self) -> bool:
        """Whether a quota is set for any key."""
        return any(entry.quota for entry in (self.default, *self.entries.values()))

    def to_json(self) -> Any:
        """Return the policy as a message for another process of this relay."""
        entries = {key.hex(): _dump(entry) for key, entry in self.entries.items()}
        return [_dump(self.default), entries]

    @classmethod
    def from_json(cls, message: Any) -> "Policy":
        """Undo `to_json`."""
        default, entries = message
        return cls({bytes.fromhex(key): _load(row) for key, row in entries.items()}, _load(default))


EMPTY: Final = Policy()


def _dump(entry: Entry) -> list[Any]:
    limit, quota = entry.limit, entry.quota
    return [
        entry.label,
        entry.allowed,
        None if limit is None else [limit.bytes_per_second, limit.burst],
        None if quota is None else [quota.size, quota.period, _dump_throttle(quota.throttle)],
        entry.group,
    ]


def _dump_throttle(throttle: RateConfig | None) -> list[int] | None:
    return None if throttle is None else [throttle.bytes_per_second, throttle.burst]


def _load(row: list[Any]) -> Entry:
    label, allowed, limit, quota, group = row
    if quota is not None:
        size, period, throttle = quota
        quota = Quota(size, Period(period), None if throttle is None else RateConfig(*throttle))
    return Entry(label, allowed, None if limit is None else RateConfig(*limit), quota, group)
