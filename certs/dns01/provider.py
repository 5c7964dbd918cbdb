"""The providers, which set and remove records: their interface and the choice."""

from typing import Protocol

from certs.dns01 import credentials
from certs.dns01.budget import Budget
from certs.dns01.lookup import Lookup
from certs.dns01.options import RFC2136, DNSOptions
from certs.dns01.record import PlacedRecord


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
