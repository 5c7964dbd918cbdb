"""What is asked of those who know the clients, and what they answer. Pure."""

import enum
from typing import Protocol

import attrs


@attrs.frozen
class Question:
    """Whether the client with this key may use the relay."""

    key: bytes
    """The client's public node key, 32 bytes."""
    source: str
    """The client's IP address as text, without a port."""


class Outcome(enum.Enum):
    """What came of a question; the values are labels of metrics."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The source could not be asked, or what it said makes no sense."""
    NO_ROOM = "no_room"
    """We could not ask: there were too many questions, or too few descriptors. Strangers can bring
    that about, so that nobody is admitted for it, whatever fails open otherwise."""


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
