"""The checks of a provider at start, without dnspython: an order may be weeks away."""

import os
from pathlib import Path

from certs import apart
from certs.dns01 import credentials
from certs.dns01.options import RFC2136, DNSOptions
from certs.errors import CertificateFileError
from certs.ownership import warn_if_swappable


def check(options: DNSOptions) -> None:
    """Check what can be checked at start. Raises CertificateFileError."""
    variables = credentials.environment(options.credentials)
    if options.program is not None:
        _check_program("-acme-dns-exec", options.program)
        if options.cleanup_program is not None:
            _check_program("-acme-dns-exec-cleanup", options.cleanup_program)
    elif options.provider == RFC2136:
        apart.check_tsig(variables)
    else:
        from certs.dns01.lexicon import check_provider  # noqa: PLC0415 - one of three

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
