"""The provider by dns-lexicon, which knows the interfaces of some eighty companies.

Each call is made in a process of its own: dns-lexicon is large, its requests know no deadline, and
what it logs may have secrets. Credentials are its variables, LEXICON_PROVIDER_AUTH_TOKEN and such.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from certs.dns01.budget import Budget
from certs.dns01.credentials import FLAG, scrubbed
from certs.dns01.options import Resolver
from certs.dns01.process import last_line, run, unstartable
from certs.dns01.record import PlacedRecord
from certs.errors import CertificateFileError, Failure, IssueError, printable
from certs.installing import how_to_install

_CHECK_TIMEOUT: Final = 60.0
_OWN_LIBRARY: Final = ("oci", "route53")
"""Providers whose own libraries may find credentials by themselves."""
_PROGRAM: Final = (
    "import json, sys;"
    "sys.path[:] = json.loads(sys.stdin.readline());"
    "from certs.dns01.lexiconcall import main;"
    "main()"
)


class Lexicon:
    """A company, by way of dns-lexicon; a Provider."""

    def __init__(
        self, provider: str, variables: Mapping[str, str], resolvers: Sequence[Resolver]
    ) -> None:
        self._provider = provider
        self._variables = variables
        self._resolvers = [(each.host, each.port) for each in resolvers]

    def set(self, placed: PlacedRecord, budget: Budget) -> str:
        """Set a record. Raises IssueError."""
        self._change("set", placed, budget)
        return ""

    def remove(self, placed: PlacedRecord, budget: Budget) -> None:
        """Remove a record. Raises IssueError."""
        self._change("remove", placed, budget)

    def _change(self, action: str, placed: PlacedRecord, budget: Budget) -> None:
        name = f"-acme-dns {self._provider}"
        call = {
            "action": action,
            "provider": self._provider,
            "resolvers": self._resolvers,
            "zone": placed.place.zone,
            "name": placed.place.name,
            "value": placed.record.value,
        }
        result = _call(call, self._variables, budget)
        if "error" not in result:
            return
        text = f"{name}: {self._provider} {result['error']}"
        if result.get("transient"):
            raise IssueError(f"{text}; the relay tries again later")
        given = ", ".join(_given(self._provider, self._variables)) or "its credentials"
        raise IssueError(
            f"{text}; correct {given}, and see that this account may change {placed.place.zone}",
            Failure.REFUSED,
        )


def check_provider(provider: str, variables: Mapping[str, str]) -> None:
    """Check that dns-lexicon is there, knows the provider, and finds its credentials.

    Raises CertificateFileError.
    """
    flag = f"-acme-dns {provider}"
    if find_spec("lexicon") is None:
        raise CertificateFileError(
            f"{flag}: dns-lexicon is not installed; {how_to_install('dns-lexicon>=3.20,<4')}"
        )
    try:
        found = _call(
            {"action": "describe", "provider": provider}, variables, Budget.of(_CHECK_TIMEOUT)
        )
    except IssueError as error:
        raise CertificateFileError(f"{flag}: {error}") from error
    if "known" in found:
        import difflib  # noqa: PLC0415 - of no use afterwards

        near = difflib.get_close_matches(provider, found["known"]) or found["known"]
        raise CertificateFileError(
            f"{flag}: no such provider; want rfc2136, or one of dns-lexicon's: {', '.join(near)}"
        )
    if "missing" in found:
        raise CertificateFileError(
            f"{flag}: its own library is not installed; {how_to_install(found['missing'])}"
        )
    known = [_variable(provider, option) for option in found["options"]]
    short = [_variable(provider, option.removeprefix("auth_")) for option in found["options"]]
    wrong = [name for name in _given(provider, variables) if name not in {*known, *short}]
    if wrong:
        raise CertificateFileError(
            f"{flag}: it has no variable {printable(wrong[0], 100)}; want {', '.join(known)}"
        )
    if known and not _given(provider, variables) and provider not in _OWN_LIBRARY:
        raise CertificateFileError(
            f"{flag}: no credentials; set what it needs of {', '.join(known)}, "
            f"in the environment or in a file for {FLAG}"
        )


def _variable(provider: str, option: str) -> str:
    return f"LEXICON_{provider}_{option}".upper()


def _given(provider: str, variables: Mapping[str, str]) -> list[str]:
    """Return the names of the provider's variables that are set."""
    prefix = _variable(provider, "")
    return sorted(name for name, value in variables.items() if name.startswith(prefix) and value)


def _call(call: Mapping[str, Any], variables: Mapping[str, str], budget: Budget) -> dict[str, Any]:
    """Make a call in a process of its own, and return its result. Raises IssueError."""
    # -I and -S: the path is given, and nothing of the environment or of `site` is needed.
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    given = budget.left()
    content = f"{json.dumps(sys.path)}\n{json.dumps(call)}\n".encode()
    try:
        ended = run(command, variables, budget, content)
    except OSError as error:
        raise unstartable(sys.executable, error) from error
    if ended.status is None:
        raise IssueError(
            f"{call['provider']} did not answer within {given:.0f} s; the relay tries again later"
        )
    try:
        result: dict[str, Any] = json.loads(ended.output)
    except ValueError:
        said = printable(scrubbed(last_line(ended.errors), variables), 200)
        raise IssueError(
            f"dns-lexicon ended with status {ended.status}: {said!r}; install it anew",
            Failure.REFUSED,
        ) from None
    return result
