"""What a fault is: it begins, it lasts, it ends; in between the relay has to bear it."""

from typing import ClassVar, Protocol

from tests.chaos.stage import Stage


class Fault(Protocol):
    """A fault of one kind; each time that it comes, it is made anew.

    `begin` and `end` are bounded in time. `end` undoes all that `begin` has done, also where that
    was half done, and returns once it is undone; clients may take longer to come back.
    """

    name: ClassVar[str]
    go: ClassVar[bool]
    """Whether the Go derper can take part."""

    def begin(self, stage: Stage) -> str:
        """Do it; return what exactly was done, in a few words."""

    def end(self, stage: Stage) -> None:
        """Undo it."""
