"""The state of one certificate: the pair in force, how often it was replaced, the last failure."""

import time

import attrs
import trio

from certs.pair import Pair
from certs.tasks.plan import CertificateSpec
from certs.tasks.report import RENEWS, Reporter


@attrs.define(eq=False)
class Status:
    """The state of one certificate. Times are Unix times in seconds."""

    certificate: CertificateSpec
    pair: Pair | None
    """The pair in force; None before the first one."""
    report: Reporter = attrs.field(default=RENEWS, kw_only=True)
    replaced: int = 0
    """How often a new pair came into force while the server ran."""
    replaced_at: float | None = None
    failures: int = 0
    failed_at: float | None = None
    failure: str = ""
    """The reason of the last failure."""
    unservable_leaf: bytes | None = None
    """The leaf (DER) of a pair in the files that TLS refuses."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when a new pair comes into force, and then replaced by a new event."""

    def succeeded(self, pair: Pair) -> None:
        """Record and log that `pair` is served from now on."""
        self.pair = pair
        self.replaced += 1
        self.replaced_at = time.time()
        self.changed.set()
        self.changed = trio.Event()
        self.report.replaced(pair)

    def failed(self, reason: str, *, next_try: float | None = None) -> None:
        """Record and log a failure to obtain or to serve a new pair; `next_try` is in seconds."""
        self.failures += 1
        self.failed_at = time.time()
        self.failure = reason
        self.report.failed(self.certificate, reason, next_try, in_force=self.pair is not None)
