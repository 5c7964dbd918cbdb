"""The provider that sends dynamic updates (RFC 2136), signed with TSIG (RFC 8945).

BIND takes them, and so do other servers. The variables are those of other ACME clients:

    RFC2136_TSIG_KEY         the name of the key
    RFC2136_TSIG_SECRET      the key itself, in base64
    RFC2136_TSIG_ALGORITHM   hmac-sha256 if it is not set
    RFC2136_NAMESERVER       host or host:port; the zone's primary, of its SOA, if it is not set
"""

import base64
import re
from collections.abc import Mapping
from typing import Final

import attrs
import dns.exception
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
from dns.name import Name

from certs.dns01.budget import Budget
from certs.dns01.lookup import Lookup
from certs.dns01.options import DNS_PORT
from certs.dns01.record import PlacedRecord
from certs.errors import CertificateFileError, Failure, IssueError, printable
from certs.hostname import parse_ip

TTL: Final = 60
"""Seconds that others may remember the record."""
_TIMEOUT: Final = 10.0
"""Seconds for one server's answer."""

_KEY: Final = "RFC2136_TSIG_KEY"
_SECRET: Final = "RFC2136_TSIG_SECRET"  # noqa: S105 - a name
_ALGORITHM: Final = "RFC2136_TSIG_ALGORITHM"
_SERVER: Final = "RFC2136_NAMESERVER"
_HOST_PORT: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+))(?::([0-9]{1,5}))?", re.ASCII
)

_ALGORITHMS: Final[dict[str, Name]] = {
    "hmac-md5": dns.tsig.HMAC_MD5,
    "hmac-sha1": dns.tsig.HMAC_SHA1,
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}


@attrs.frozen
class Settings:
    """The key, and the server that takes updates."""

    key: dns.tsig.Key = attrs.field(repr=False)
    host: str = ""
    """A name or an IP address; "" for the zone's primary."""
    port: int = DNS_PORT


def parse_settings(variables: Mapping[str, str]) -> Settings:
    """Return the settings in the variables. Raises CertificateFileError."""
    name, secret = variables.get(_KEY, ""), variables.get(_SECRET, "")
    for variable, value in ((_KEY, name), (_SECRET, secret)):
        if not value:
            raise CertificateFileError(
                f"-acme-dns rfc2136: {variable} is not set; "
                f"give -acme-dns-credentials a file of tsig-keygen's, or set the variable"
            )
    try:
        key_name = dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError):
        raise CertificateFileError(f"{_KEY}: want the name of the key, a DNS name") from None
    try:
        binary = base64.b64decode(secret, validate=True)
    except ValueError:
        raise CertificateFileError(f"{_SECRET}: want the key in base64") from None
    algorithm = variables.get(_ALGORITHM, "") or "hmac-sha256"
    if algorithm.lower().rstrip(".") not in _ALGORITHMS:
        raise CertificateFileError(
            f"{_ALGORITHM}={printable(algorithm, 50)}: want one of {', '.join(_ALGORITHMS)}"
        )
    key = dns.tsig.Key(key_name, binary, _ALGORITHMS[algorithm.lower().rstrip(".")])
    host, port = _host_and_port(variables.get(_SERVER, ""))
    return Settings(key, host, port)


def check_settings(variables: Mapping[str, str]) -> None:
    """Check the variables. Raises CertificateFileError."""
    parse_settings(variables)


def _host_and_port(text: str) -> tuple[str, int]:
    if not text:
        return "", DNS_PORT
    if (address := parse_ip(text)) is not None:
        return str(address), DNS_PORT
    match = _HOST_PORT.fullmatch(text)
    if match is None or not 0 < int(match[3] or DNS_PORT) <= 65535:
        raise CertificateFileError(
            f"{_SERVER}={printable(text, 100)}: want host, host:port or [ip6]:port"
        )
    return match[1] or match[2], int(match[3] or DNS_PORT)


class DynamicUpdates:
    """Dynamic updates; a Provider."""

    def __init__(self, settings: Settings, lookup: Lookup) -> None:
        self._settings = settings
        self._lookup = lookup

    def set(self, placed: PlacedRecord, budget: Budget) -> str:
        """Add a record beside those that are there. Raises IssueError."""
        update = self._update(placed)
        update.add(f"{placed.place.name}.", TTL, "TXT", placed.record.value)
        self._send(update, placed, budget)
        return ""

    def remove(self, placed: PlacedRecord, budget: Budget) -> None:
        """Remove a record, and no other of that name. Raises IssueError."""
        update = self._update(placed)
        update.delete(f"{placed.place.name}.", "TXT", placed.record.value)
        self._send(update, placed, budget)

    def _update(self, placed: PlacedRecord) -> dns.update.UpdateMessage:
        return dns.update.UpdateMessage(f"{placed.place.zone}.", keyring=self._settings.key)

    def _send(self, update: dns.update.UpdateMessage, placed: PlacedRecord, budget: Budget) -> None:
        zone = placed.place.zone
        host, port = self._settings.host, self._settings.port
        if not host:
            host, port = self._lookup.primary(zone, budget), self._lookup.port
        address = parse_ip(host)
        addresses = (str(address),) if address else self._lookup.addresses(host, budget)
        reason: Exception | str = "no address"
        for each in addresses:
            budget.check()
            try:
                response = dns.query.tcp(update, each, timeout=budget.left(_TIMEOUT), port=port)
            except dns.tsig.PeerBadTime as error:
                raise IssueError(
                    f"{host} finds that this machine's clock is wrong; set it"
                ) from error
            except (dns.tsig.PeerError, dns.tsig.BadSignature) as error:
                raise self._bad_key(host, error) from error
            except (OSError, EOFError, dns.exception.DNSException, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                continue
            self._check(response, host, zone)
            return
        raise IssueError(
            f"the name server {host}, port {port}, can't be asked to change {zone} "
            f"({printable(str(reason) or type(reason).__name__, 100)}); start it and let this "
            f"machine reach it by TCP, or set {_SERVER} to another"
        )

    def _bad_key(self, host: str, error: Exception) -> IssueError:
        key = self._settings.key
        algorithm = next(name for name, value in _ALGORITHMS.items() if value == key.algorithm)
        if isinstance(error, dns.tsig.PeerBadKey):
            text = f"{host} knows no {algorithm} key {key.name.to_text(omit_final_dot=True)}"
            cure = f"add it there, or correct {_KEY} and {_ALGORITHM}"
        else:
            text = f"{host} has another secret for the key {key.name.to_text(omit_final_dot=True)}"
            cure = f"correct {_SECRET} and {_ALGORITHM}"
        return IssueError(f"{text}; {cure}", Failure.REFUSED)

    def _check(self, response: dns.message.Message, host: str, zone: str) -> None:
        """Raise IssueError for a refusal."""
        code = response.rcode()
        if code == dns.rcode.NOERROR and response.had_tsig:
            return
        key = self._settings.key.name.to_text(omit_final_dot=True)
        failure, cure = Failure.REFUSED, f"see its log; {_KEY} is {key}, and the zone is {zone}"
        if code == dns.rcode.NOERROR:
            # Only later versions of dnspython raise an error.
            failure, cure = Failure.TRANSIENT, "that is not signed; see what answers there"
        elif code == dns.rcode.REFUSED:
            cure = f"let the key {key} ({_KEY}) change TXT records there"
        elif code in {dns.rcode.NOTAUTH, dns.rcode.NOTZONE, dns.rcode.NOTIMP}:
            cure = f"set {_SERVER} to the server on which the zone is changed"
        elif code == dns.rcode.SERVFAIL:
            failure, cure = Failure.TRANSIENT, "see its log: it may be unable to write the zone"
        text = f"{host} answers {dns.rcode.to_text(code)} to an update of {zone}"
        raise IssueError(f"{text}; {cure}", failure)
