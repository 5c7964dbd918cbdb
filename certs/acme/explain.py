"""The errors of an order, as one line with a cure."""

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final

import acme.errors
import requests
from acme import messages
from josepy.errors import Error as JoseError

from certs.acme.challenge import Kind
from certs.acme.network import Network
from certs.errors import Failure, IssueError, causes, printable

Cures = Mapping[str, str]
"""What the operator can do, by ACME problem type (RFC 8555, 6.7)."""

EAB_FLAGS: Final = "-acme-eab-kid and -acme-eab-key"

_ANOTHER_ACCOUNT: Final = (
    "if the account was closed, remove the account key in -certdir to register anew"
)
_CURES: Final[Cures] = {
    "accountDoesNotExist": _ANOTHER_ACCOUNT,
    "badContact": "give -acme-email an address that the authority takes",
    "caa": "change the CAA records of the domain so that they allow this authority",
    "externalAccountRequired": f"give {EAB_FLAGS} what the authority issued for them",
    "invalidContact": "give -acme-email an address that the authority takes",
    "invalidEmail": "give -acme-email an address that the authority takes",
    "invalidProfile": "point -acme-directory at an authority that has this profile",
    "rateLimited": "the relay waits; see what else orders certificates for this name or account",
    "rejectedIdentifier": "use a name or address for which this authority issues certificates",
    "unauthorized": _ANOTHER_ACCOUNT,
    "unsupportedContact": "give -acme-email an address that the authority takes",
    "unsupportedIdentifier": "use a name that this authority certifies, or another -acme-directory",
    "userActionRequired": "do what it asks for, then send the relay a SIGHUP",
}
_LATER: Final = "the relay tries again later"
_UNKNOWN: Final = "see the authority's documentation"
_CHECK_URL: Final = "check that -acme-directory is the URL of an ACME server"

_TRANSIENT_TYPES: Final = ("badNonce", "serverInternal")

_REACHABLE: Final = {
    "http-01": "make TCP port 80 of {name} lead to this relay from everywhere",
    "tls-alpn-01": (
        "make TCP port 443 of {name} lead to this relay from everywhere, "
        "past nothing that terminates TLS"
    ),
    "dns-01": "see that all name servers of {name} show the TXT record of _acme-challenge there",
}


@contextlib.contextmanager
def explained(network: Network, cures: Cures | None = None) -> Iterator[None]:
    """Turn every exception of the library into an IssueError; `cures` go before the usual ones.

    Use it only around calls of the library and reads of its results: a response that violates
    RFC 8555 makes these raise TypeError and the like.
    """
    try:
        yield
    except messages.Error as error:
        raise problem(network, error, cures) from error
    except (
        acme.errors.Error,
        JoseError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # Before OSError: the errors of `requests` are all OSErrors, and some are ValueErrors, too.
        raise malformed_answer(network) from error
    except OSError as error:
        raise _unreachable(network, error) from error


def problem(network: Network, error: messages.Error, cures: Cures | None = None) -> IssueError:
    """Return the IssueError for a problem document in a response."""
    code = problem_type(error)
    if code in _TRANSIENT_TYPES or (network.status >= 500 and code != "rateLimited"):
        cure, failure = _LATER, Failure.TRANSIENT
    else:
        cure, failure = {**_CURES, **(cures or {})}.get(code, _UNKNOWN), Failure.REFUSED
    return IssueError(f"{_quote(network.host, error)}; {cure}", failure, network.retry_after)


def failed_validation(
    network: Network, error: messages.Error | None, kind: Kind, name: str
) -> IssueError:
    """Return the IssueError for a name whose challenge failed."""
    reachable = _REACHABLE[kind].format(name=name.removeprefix("*."))
    if error is None:
        text, cure = f"{network.host} could not validate {name} by {kind}", reachable
    else:
        text = f"{_quote(network.host, error)} when it tried {kind} with {name}"
        match problem_type(error):
            case "unauthorized":
                cure = reachable
            case "dns" | "dnssec" | "unknownHost":
                cure = reachable
                if kind != "dns-01":
                    cure = f"give {name} DNS records with the addresses of this relay"
            case code:
                cure = _CURES.get(code, reachable)
    return IssueError(f"{text}; {cure}", Failure.VALIDATION)


def problem_type(error: messages.Error) -> str:
    """Return the name of an ACME problem type, without the URN prefix."""
    return str(error.typ).removeprefix(messages.ERROR_PREFIX)


def _quote(host: str, error: messages.Error) -> str:
    details = [error.detail, *(part.detail for part in error.subproblems or ())]
    said = printable(" ".join(str(detail) for detail in details if detail))
    return f"{host} says {said!r} ({printable(problem_type(error), 50)})"


def malformed_answer(network: Network) -> IssueError:
    """Return the IssueError for a response that violates RFC 8555."""
    slow_down = network.status == HTTPStatus.TOO_MANY_REQUESTS
    if network.status >= 400:
        text = f"{network.host} answers with HTTP status {network.status}"
        cure = _LATER if slow_down or network.status >= 500 else _CHECK_URL
    else:
        text, cure = f"{network.host} sends a response that is not ACME", _CHECK_URL
    failure = Failure.REFUSED if slow_down else Failure.TRANSIENT
    return IssueError(f"{text}; {cure}", failure, network.retry_after)


def _unreachable(network: Network, error: OSError) -> IssueError:
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return IssueError(
                f"{network.host} has a certificate that can't be verified "
                f"({cause.verify_message}); give -acme-ca-bundle its root if it is an authority "
                f"of your own, and check this machine's clock"
            )
    if isinstance(error, requests.Timeout):
        reason = "no answer in time"
    else:
        reasons = [cause.strerror for cause in chain if isinstance(cause, OSError)]
        reason = next((text for text in reversed(reasons) if text), str(chain[-1]))
    return IssueError(f"{network.host} can't be reached ({printable(reason, 100)}); {_LATER}")
