"""The question whether a client may use the relay, and the verdict on it. Sans-I/O."""

import enum
from typing import Final, Protocol

import attrs

from derp.errors import NotAdmitted
from derp.relay.networks import network_of

ANSWER_TIMEOUT: Final = 5.0
"""Seconds in which an answer is in time (Go: verifyClient)."""
LATEST_ANSWER: Final = 30.0
"""Seconds after which no answer of a URL counts any more."""


@attrs.frozen
class Question:
    """The question whether the client with this key, at this address, may use the relay."""

    key: bytes
    """The client's public node key, 32 bytes."""
    address: str
    """The client's IP address as text, without a port; UNIX if it came by a unix socket."""

    @property
    def network(self) -> str:
        """The /24 or /64 of the address, which most likely has one owner."""
        return network_of(self.address)


class Outcome(enum.Enum):
    """The result of asking a source; the values are labels of metrics."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The source closed the connection without a response, or the response is malformed."""
    UNREACHABLE = "unreachable"
    """There is no connection to the source, whatever the question."""
    LATE = "late"
    """The source did not respond in time (`Limiter.patience`, `Limiter.timeout`)."""
    SLOW = "slow"
    """The source has the question, and may still answer: it is not known to be down."""
    NO_ROOM = "no_room"
    """Too many other questions prevented an answer, or the relay had too few descriptors."""


UNAVAILABLE: Final = (Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNKNOWN)
"""The outcomes on which a URL may fail open (`checker` says why)."""


@attrs.frozen
class Verdict:
    """The answer of a source, or of the relay itself, to a Question."""

    outcome: Outcome
    source: str
    """The name of the source that was asked."""
    reason: str = ""
    """One line for the log: why the source refuses, or why it can't be asked, with the cure."""
    failed_open: bool = False
    """Whether the client is admitted although the source is UNAVAILABLE."""
    over_quota: bool = False
    """Whether the client is refused because its quota is used up."""

    @property
    def admitted(self) -> bool:
        """Whether the client may use the relay."""
        return self.failed_open or self.outcome is Outcome.ALLOWED

    @property
    def authoritative(self) -> bool:
        """Whether the source answered, with yes or no."""
        return self.outcome in {Outcome.ALLOWED, Outcome.REFUSED}

    @property
    def cacheable(self) -> bool:
        """Whether to cache it: not a refusal for lack of an answer."""
        return self.authoritative or self.failed_open


def not_admitted(verdict: Verdict, what: str) -> NotAdmitted:
    """Return the end of a connection that `verdict` refuses; `what` is for the log."""
    return NotAdmitted(
        what,
        authoritative=verdict.authoritative,
        source=verdict.source,
        over_quota=verdict.over_quota,
    )


class Source(Protocol):
    """A list or a service that the checker asks."""

    @property
    def name(self) -> str:
        """The source's name in logs and metrics."""

    async def ask(self, question: Question) -> Verdict:
        """Return the verdict, within a time that the source itself bounds.

        A failure outside the relay, such as a malformed response, is a verdict and not raised.
        """


class Admission(Protocol):
    """The interface to admission: a Checker, or a proxy of one in another process."""

    def known(self, question: Question) -> Verdict | None:
        """Return the verdict on a client that logs in, if it is there without waiting."""

    async def admit(self, question: Question) -> Verdict:
        """Return the verdict on a client that logs in."""

    async def recheck(self, question: Question) -> Verdict:
        """Return a new verdict on a connected client."""
