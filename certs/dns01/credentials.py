"""The credentials of a DNS provider: variables of the environment and of -acme-dns-credentials."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from certs.errors import CertificateFileError
from certs.files import open_regular
from certs.ownership import warn_if_swappable

FLAG: Final = "-acme-dns-credentials"
_MAX_SIZE: Final = 65536
_LINE: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)", re.ASCII)
_KEY: Final = re.compile(
    r"""\s* key \s+ "?([A-Za-z0-9_.-]+)"? \s* \{
        \s* algorithm \s+ "?([A-Za-z0-9-]+)"? \s* ;
        \s* secret \s+ "?([A-Za-z0-9+/=]+)"? \s* ;
        \s* \} \s* ; \s*""",
    re.ASCII | re.VERBOSE,
)

_OWN_SECRETS: Final = re.compile(r"DERP_|TAILSCALE_DERPER_|TS_")
_SECRET: Final = re.compile(r"AUTH|CREDENTIAL|KEY|PASS|SECRET|TOKEN", re.IGNORECASE)


def parse(text: str) -> dict[str, str]:
    """Return the variables in a file of lines `NAME=value`, or in a key file of tsig-keygen's.

    Blank lines and those that begin with # are skipped, and quotes around a value are dropped.
    Raises ValueError, whose message has nothing of the text.
    """
    if (key := _KEY.fullmatch(text)) is not None:
        names = "RFC2136_TSIG_KEY", "RFC2136_TSIG_ALGORITHM", "RFC2136_TSIG_SECRET"
        return dict(zip(names, key.groups(), strict=True))
    found = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise ValueError(f"line {number} is not NAME=value")
        name, value = match.groups()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found


def read(file: Path | None) -> dict[str, str]:
    """Return the variables in a file; none for None. Raises CertificateFileError. Blocks."""
    if file is None:
        return {}
    try:
        with open_regular(file) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CertificateFileError(
            f"{FLAG} {file}: can't be read ({reason}); "
            f"name a file that the relay can read, with lines NAME=value"
        ) from error
    if len(content) > _MAX_SIZE:
        raise CertificateFileError(
            f"{FLAG} {file}: it has more than {_MAX_SIZE >> 10} KiB; want lines NAME=value"
        )
    if mode & stat.S_IRWXO:
        raise CertificateFileError(
            f"{FLAG} {file}: others can use it (mode {stat.S_IMODE(mode):04o}); "
            f"run: chmod 600 {file}"
        )
    warn_if_swappable(file)
    try:
        return parse(content.decode())
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except ValueError as error:
        reason = str(error)
    # Without the cause: nothing of the content belongs in a traceback.
    raise CertificateFileError(
        f"{FLAG} {file}: {reason}; want lines NAME=value, or for rfc2136 a file of tsig-keygen's"
    ) from None


def scrubbed(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` without the values of variables that may be secret by their names.

    Values of fewer than four characters stay: they may be part of any text.
    """
    secrets = {
        form
        for name, value in variables.items()
        if len(value) > 3 and _SECRET.search(name)
        for form in (value, quote(value, safe=""), quote_plus(value))
    }
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def environment(file: Path | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for a provider: those of the file, and else of the environment.

    The relay's own variables are left out, as some are secret. Raises CertificateFileError. Blocks.
    """
    inherited = {name: value for name, value in environ.items() if not _OWN_SECRETS.match(name)}
    return {**inherited, **read(file)}
