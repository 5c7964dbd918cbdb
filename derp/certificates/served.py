"""One certificate: which names it is for, where it is kept, and what the pages tell of it."""

import time
from collections.abc import Sequence

import attrs
import trio

from certs.acme.authority import Authority
from certs.acme.challenge import Kind
from certs.files import PairFiles
from certs.pair import Pair
from derp import log

logger = log.get("certificates")


@attrs.frozen(kw_only=True)
class ByACME:
    """How a certificate is ordered."""

    authority: Authority
    profile: str
    """Of the authority's; empty for its usual one."""
    challenges: Sequence[Kind]
    """ "tls-alpn-01" and "http-01", or one of them; the most promising first."""


@attrs.frozen
class Certificate:
    """A certificate that is to be served."""

    names: tuple[str, ...]
    """DNS names and IP addresses; the first one names it."""
    files: PairFiles
    acme: ByACME | None = None
    """None where it is not ordered."""
    is_operators: bool = False
    """Only the operator writes to the files."""

    @property
    def text(self) -> str:
        """The names, for a log line."""
        return " ".join(self.names)


@attrs.define(eq=False)
class Status:
    """The pair in force, and how it came to be. Times are Unix times in seconds."""

    certificate: Certificate
    pair: Pair | None
    """None while there is none."""
    told_elsewhere: bool = attrs.field(default=False, kw_only=True)
    """Another process watches the same files, and tells the operator what becomes of them."""
    replaced: int = 0
    """How often there was a new one while the server ran, and when last."""
    replaced_at: float | None = None
    failures: int = 0
    """How often there was not, when last, and why."""
    failed_at: float | None = None
    failure: str = ""
    unfit: bytes | None = None
    """The leaf of a pair that is in the files and that TLS refuses."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set, and replaced by another one, when there is a new pair."""

    def succeeded(self, pair: Pair) -> None:
        """Take note that `pair` is served from now on, and log it."""
        self.pair = pair
        self.replaced += 1
        self.replaced_at = time.time()
        self.changed.set()
        self.changed = trio.Event()
        self.warn(pair)
        names = " ".join(pair.names)
        expires = f"{pair.not_after:%Y-%m-%dT%H:%MZ}"
        tell = logger.debug if self.told_elsewhere else logger.info
        tell("new certificate", names=names, expires=expires, pin=pair.pin)

    def warn(self, pair: Pair) -> None:
        """Log what the operator should know of a pair that is served."""
        if not self.told_elsewhere:
            for warning in pair.warnings:
                logger.warning(warning)

    def unchanged(self) -> None:
        """Log that there is no new one, for whoever had it looked for."""
        if self.pair is not None and not self.told_elsewhere:
            logger.info("the certificate has not changed", names=self.certificate.text)

    def failed(self, reason: str, *, next_try: float | None = None) -> None:
        """Take note that a new one can't be served or had, and log it, with `next_try` in s."""
        self.failures += 1
        self.failed_at = time.time()
        self.failure = reason
        what = "the old certificate stays in force" if self.pair else "no certificate yet"
        seconds = None if next_try is None else round(next_try)
        tell = logger.debug if self.told_elsewhere else logger.error
        tell(what, names=self.certificate.text, reason=reason, next_try_in_seconds=seconds)
