"""The text of a Health frame: what is wrong with a client's use of the relay. Sans-I/O.

Tailscale's clients show it as "The relay server #900 is reporting an issue: …" (health.Tracker,
derpRegionErrorWarnable) until they get another text, an empty one, or a ServerInfo.
"""

import enum

import attrs


class Refusal(enum.StrEnum):
    """The reason of a refusal, as the client is told it: the sources are not its business."""

    DENIED = "the operator of the relay denies this device the use of it"
    UNKNOWN = "this device is not among those that may use the relay"
    UNVERIFIED = "the relay can't find out now which devices may use it, and so refuses this one"


@attrs.frozen
class OverQuota:
    """A quota that is used up, in words."""

    quota: str
    """As "5 GB/day"."""
    until: str
    """The day on which the quota begins anew, as "2026-12-01"."""
    throttle: str = ""
    """The rate limit over it, as "1 Mbit/s"; empty where nothing is slowed down."""
    refused: bool = False
    """Whether the client is refused over it."""


@attrs.frozen
class Conditions:
    """All that is wrong; by default, nothing."""

    stopping: bool = False
    """Whether the relay goes down."""
    refusal: Refusal | None = None
    over_quota: OverQuota | None = None
    cloned: bool = False
    """Whether the key is connected from two addresses at once."""


def text(conditions: Conditions) -> str:
    """Return what to tell the client, the most important first; empty if all is well."""
    said = []
    if conditions.stopping:
        said.append(
            "the relay goes down, perhaps to be started again; this device reconnects by itself"
        )
    if conditions.refusal is not None:
        said.append(conditions.refusal.value)
    if conditions.over_quota is not None:
        said.append(_over_quota(conditions.over_quota))
    if conditions.cloned:
        said.append(
            "this device's key is in use at two addresses at once; if another device is a copy "
            "of this one, have one of the two log out of Tailscale, and in again"
        )
    return ". Also, ".join(said)


def _over_quota(over: OverQuota) -> str:
    until = f"until {over.until} 00:00 UTC"
    used = f"this device has used up its quota of {over.quota} here"
    if over.refused:
        return f"{used}, and is refused {until}"
    if over.throttle:
        return f"{used}, and is slowed down to {over.throttle} {until}"
    return f"{used}, {until}"
