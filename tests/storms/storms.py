"""Which storms there are: what the relay asks who may use it, and how many come at once."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

STRANGERS = 10
"""There is one stranger to so many who belong."""
MANY, FEW = 5000, 200
"""Clients that belong, in the long and in the short form."""


class Asked(enum.Enum):
    """What the relay asks."""

    NOTHING = "nothing"
    FILE = "a list file"
    POLICY = "a policy"
    TAILSCALED = "tailscaled"
    URL = "a URL"
    TAILNET = "a tailnet's API"
    HEADSCALE = "headscale's API"
    ALL = "all of two"


@dataclass(frozen=True)
class Storm:
    """Clients that come back at once after a restart, and strangers among them."""

    asked: Asked
    says: str
    """What is asked, for whoever reads the table."""
    many: int = MANY
    """Clients that belong, in the long form."""
    few: int = FEW
    """The same in the short form; 0 if it is in the long form only."""
    takes: str = "0s"
    """Time that the URL takes for an answer, as Go writes it."""
    one_by_one: bool = False
    """Whether the URL answers one question after the other."""
    limit: float = 60.0
    """Seconds after which those that are not in are no more waited for."""
    in_go: bool = False
    """Whether the Go derper can do the same."""
    is_slow: bool = False
    """Whether the source can't answer for all in the 9 s that a verdict may take."""
    count: int = 0

    @property
    def id(self) -> str:
        words = [self.asked.name.lower()]
        if self.asked is Asked.URL:
            words += [self.takes, *(["one-by-one"] if self.one_by_one else [])]
        return "-".join(words)

    @property
    def strangers(self) -> int:
        return 0 if self.asked is Asked.NOTHING else max(1, self.count // STRANGERS)

    def of(self, *, long: bool) -> "Storm":
        return replace(self, count=self.many if long else self.few)


url = partial(Storm, Asked.URL, in_go=True)

STORMS: Sequence[Storm] = (
    # Twice as many as may be pending at once.
    Storm(Asked.NOTHING, "nobody", few=4000, in_go=True),
    Storm(Asked.FILE, "a list of keys"),
    Storm(Asked.POLICY, "a policy"),
    Storm(Asked.TAILSCALED, "tailscaled", in_go=True),
    url("a URL that takes 1 ms", takes="1ms"),
    url("a URL that takes 60 ms", takes="60ms"),
    url(
        "a URL that takes 60 ms, for one at a time",
        takes="60ms",
        one_by_one=True,
        many=400,
        few=40,
        is_slow=True,
    ),
    url("a URL that takes 6 s", takes="6s", many=300, few=0, is_slow=True, limit=150.0),
    Storm(Asked.TAILNET, "Tailscale's API"),
    Storm(Asked.HEADSCALE, "headscale's API"),
    Storm(Asked.ALL, "Tailscale's API and a URL of 1 ms, both", takes="1ms"),
)
