"""What is asked of those who know the clients, and what they answer. Pure."""

import enum
from typing import Final, Protocol

import attrs

from derp.relay.networks import network_of

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that a source has for an answer (Go: verifyClient)."""


@attrs.frozen
class Question:
    """Whether the client with this key may use the relay."""

    key: bytes
    """The client's public node key, 32 bytes."""
    source: str
    """The client's IP address as text, without a port."""

    @property
    def network(self) -> str:
        """The network that the address most likely shares with its owner's others."""
        return network_of(self.source)


class Outcome(enum.Enum):
    """What came of a question; the values are labels of metrics."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The source hung up on this question, or what it said makes no sense."""
    UNREACHABLE = "unreachable"
    """There was no connection to the source, and so would be none for any question."""
    LATE = "late"
    """The source gave no answer in the time that it has."""
    NO_ROOM = "no_room"
    """We could not ask: there were too many questions, or too few descriptors. Strangers can bring
    that about, so that nobody is admitted for it, whatever fails open otherwise."""


LOST: Final = (Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNKNOWN)
"""What the source is the cause of, but no answer. It may fail open."""


@attrs.frozen
class Answer:
    """What a source says."""

    outcome: Outcome
    reason: str = ""
    """One line for the log: what was said, or the cause of the trouble and the cure."""


class Source(Protocol):
    """Somebody who knows which clients belong."""

    @property
    def name(self) -> str:
        """Its name in logs and metrics."""

    async def ask(self, question: Question) -> Answer:
        """Ask, within a time that the source itself bounds.

        Trouble outside, such as a broken network or nonsense for an answer, is an Answer too.
        """
        ...
