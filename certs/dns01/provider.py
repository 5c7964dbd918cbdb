"""The providers, which set and remove records: their interface, the choice, the checks at start."""

import os
from pathlib import Path
from typing import Protocol

from certs.dns01 import credentials
from certs.dns01.budget import Budget
from certs.dns01.lookup import Lookup
from certs.dns01.options import RFC2136, DNSOptions
from certs.dns01.record import PlacedRecord
from certs.errors import CertificateFileError
from certs.ownership import warn_if_swappable


class Provider(Protocol):
    """A setter of TXT records, which leaves others with the same name alone."""

    def set(self, placed: PlacedRecord, budget: Budget) -> str:
        """Set a record; return the `output` that `remove` needs. Raises IssueError."""

    def remove(self, placed: PlacedRecord, budget: Budget) -> None:
        """Remove a record; one that is not there is no error. Raises IssueError."""


def make_provider(options: DNSOptions, lookup: Lookup) -> Provider:
    """Return the provider, with the credentials as they are now. Raises CertificateFileError."""
    variables = credentials.environment(options.credentials)
    if options.program is not None:
        from certs.dns01.hook import Hook  # noqa: PLC0415 - one of three

        return Hook(options.program, options.cleanup_program, variables)
    if options.provider == RFC2136:
        from certs.dns01.rfc2136 import DynamicUpdates, parse_settings  # noqa: PLC0415 - as above

        return DynamicUpdates(parse_settings(variables), lookup)
    from certs.dns01.lexicon import Lexicon  # noqa: PLC0415 - as above

    return Lexicon(options.provider, variables, options.resolvers)


def check(options: DNSOptions) -> None:
    """Check what can be checked at start. Raises CertificateFileError."""
    variables = credentials.environment(options.credentials)
    if options.program is not None:
        _check_program("-acme-dns-exec", options.program)
        if options.cleanup_program is not None:
            _check_program("-acme-dns-exec-cleanup", options.cleanup_program)
    elif options.provider == RFC2136:
        from certs.dns01.rfc2136 import parse_settings  # noqa: PLC0415 - as above

        parse_settings(variables)
    else:
        from certs.dns01.lexicon import check_provider  # noqa: PLC0415 - as above

        check_provider(options.provider, variables)


def _check_program(flag: str, program: Path) -> None:
    if not program.is_file():
        raise CertificateFileError(
            f"{flag} {program}: no such file; name a program with its whole path"
        )
    if not os.access(program, os.X_OK):
        raise CertificateFileError(
            f"{flag} {program}: this user may not run it; run: chmod a+rx {program}"
        )
    warn_if_swappable(program)
