"""Faults of files: certificate, list and policy replaced while the relay runs.

List and policy change for good: others belong then, which the books have to show.
"""

import contextlib

from tests.chaos import reading
from tests.chaos.stage import LIST, URL, Stage
from tests.interop.issuing import hang_up
from tests.interop.relay import RelayError

TAKEN_OUT = 0.2
"""The share of a list that is taken out."""
DENIED_AT_ONCE = 2


class NotNowError(Exception):
    """It can't be undone while another fault lasts."""


class ReplaceCertificate:
    """Another certificate is put where the relay's is."""

    name, go = "certificate-replaced", False

    def begin(self, stage: Stage) -> str:
        try:
            stage.served = stage.put_certificate()
            hang_up(stage.relay)
        except (OSError, RelayError) as error:
            return f"it could not be: {str(error).splitlines()[0]}"
        return "by one of another authority"

    def end(self, stage: Stage) -> None:
        """Nothing: it stays."""


class ReplaceList:
    """The list has a mistake, so that the old one stays; then it is another one."""

    name, go = "list-replaced", False

    def begin(self, stage: Stage) -> str:
        stage.write_list("nodekey:this is none\n")
        return "by one with a mistake"

    def end(self, stage: Stage) -> None:
        listed = stage.of(LIST)
        stage.away.difference_update(listed)
        stage.away.update(stage.chance.sample(listed, int(len(listed) * TAKEN_OUT)))
        stage.write_list()


class ChangePolicy:
    """An operator denies some, and allows those that were denied the last time."""

    name, go = "policy-changed", False

    def __init__(self) -> None:
        self.chosen: list[int] = []
        self.before: list[int] = []

    def begin(self, stage: Stage) -> str:
        urls = stage.of(URL)
        self.before = [number for number in urls if number in stage.away]
        others = [number for number in urls if number not in stage.away]
        self.chosen = stage.chance.sample(others, DENIED_AT_ONCE)
        with contextlib.suppress(OSError):
            steer(stage, "deny", self.chosen)
            return f"clients {self.chosen} are denied"
        return "the relay could not be told yet"

    def end(self, stage: Stage) -> None:
        try:
            steer(stage, "deny", self.chosen)
            stage.away.update(self.chosen)
            steer(stage, "allow", self.before)
            stage.away.difference_update(self.before)
        except OSError as error:
            raise NotNowError(str(error)) from None


def steer(stage: Stage, command: str, numbers: list[int]) -> None:
    """Do what `derper deny`, or the like, does for each. Raises OSError."""
    for number in numbers:
        reading.steer(stage.relay, command, stage.members[number].node_key)
