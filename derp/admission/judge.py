"""The checker as those know it who want a verdict, wherever it is."""

from typing import Protocol

from derp.admission.cache import Verdict
from derp.admission.question import Question


class Admission(Protocol):
    """Says who may use the relay. Trouble with asking is a verdict, too."""

    async def admit(self, question: Question) -> Verdict:
        """Return the verdict on a client that logs in."""
        ...

    async def recheck(self, question: Question) -> Verdict:
        """Ask anew, and return the verdict on a client that is connected."""
        ...
