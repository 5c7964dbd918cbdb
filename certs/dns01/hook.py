"""The provider that calls a program, as certbot calls the hooks of its plugin `manual`.

The program is run to set each record, and again to remove it, with these variables:

    CERTBOT_DOMAIN                 the name that is validated, without "*."
    CERTBOT_IDENTIFIER             the same
    CERTBOT_VALIDATION             the text of the TXT record at _acme-challenge.DOMAIN
    CERTBOT_ALL_DOMAINS            all names of the order, with commas between them
    CERTBOT_ALL_IDENTIFIERS        the same
    CERTBOT_REMAINING_CHALLENGES   how many records come after this one
    CERTBOT_AUTH_OUTPUT            to remove it only: what was printed as it was set

CERTBOT_TOKEN is not set, as certbot sets it for HTTP challenges only. One program for both is told
which as its argument, too: `auth` or `cleanup`. A program that fails ends the order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from certs.dns01.budget import Budget
from certs.dns01.credentials import scrubbed
from certs.dns01.process import last_line, run, unstartable
from certs.dns01.record import PlacedRecord
from certs.errors import Failure, IssueError, printable

_MAX_SHOWN: Final = 200
"""Most characters to show of the last line that a program prints."""


def _is_certbots(variable: str) -> bool:
    return variable.startswith("CERTBOT_")


class Hook:
    """A program of the operator's; a Provider."""

    def __init__(
        self, program: Path, cleanup_program: Path | None, variables: Mapping[str, str]
    ) -> None:
        self._program = program
        self._cleanup_program = cleanup_program
        self._variables = variables

    def set(self, placed: PlacedRecord, budget: Budget) -> str:
        """Run the program for a record; return what it prints. Raises IssueError."""
        output = self._run("-acme-dns-exec", self._program, "auth", {}, placed, budget)
        return output.decode(errors="replace").strip()

    def remove(self, placed: PlacedRecord, budget: Budget) -> None:
        """Run the program to remove a record. Raises IssueError."""
        program, flag = self._cleanup_program, "-acme-dns-exec-cleanup"
        if program is None:
            program, flag = self._program, "-acme-dns-exec"
        output = {"CERTBOT_AUTH_OUTPUT": placed.output}
        self._run(flag, program, "cleanup", output, placed, budget)

    def _run(
        self,
        flag: str,
        program: Path,
        what: str,
        more: Mapping[str, str],
        placed: PlacedRecord,
        budget: Budget,
    ) -> bytes:
        name = f"{flag} {program}"
        command = [str(program), what] if self._cleanup_program is None else [str(program)]
        domains = ",".join(placed.all_domains)
        variables = {
            **{name: text for name, text in self._variables.items() if not _is_certbots(name)},
            "CERTBOT_DOMAIN": placed.record.domain,
            "CERTBOT_IDENTIFIER": placed.record.domain,
            "CERTBOT_VALIDATION": placed.record.value,
            "CERTBOT_ALL_DOMAINS": domains,
            "CERTBOT_ALL_IDENTIFIERS": domains,
            "CERTBOT_REMAINING_CHALLENGES": str(placed.remaining),
            **more,
        }
        doing = f"{what} for {placed.record.domain}"
        given = budget.left()
        try:
            ended = run(command, variables, budget)
        except OSError as error:
            raise unstartable(name, error) from error
        if ended.status is None:
            raise IssueError(
                f"{name}: {doing} did not end within {given:.0f} s; "
                f"have it end once the record is set, or give -acme-dns-wait more"
            )
        if ended.status:
            said = printable(scrubbed(last_line(ended.errors), self._variables), _MAX_SHOWN)
            told = f": {said!r}" if said else ""
            raise IssueError(
                f"{name}: {doing} ended with status {ended.status}{told}; "
                f"run it by hand with CERTBOT_DOMAIN and CERTBOT_VALIDATION, and mend what it says",
                Failure.REFUSED,
            )
        return ended.output
