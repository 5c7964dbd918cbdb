"""The pages for monitors at -metrics-addr: the figures, and the relay's health."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar

import attrs
import trio

from derp.http.monitoring import CertificateHealth, Health, MonitoringBackend
from derp.metrics import Certificate, Gauges, render_metrics
from derp.metrics.keybytes import OTHER_KEYS
from derp.service.keytraffic import KeyTraffic
from derp.service.running import RunningRelay
from derp.service.status import capture, certificate
from derp.wire.keys import node_public_text

MIN_AGE: Final = 1.0
"""Seconds for which an answer is given again: a bound on the work that strangers can cause."""

T = TypeVar("T")


class Paced(Generic[T]):
    """A question that is asked once in MIN_AGE seconds, however often it comes."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking: trio.Event | None = None
        self._answer: T | None = None
        self._asked_at = 0.0

    async def __call__(self) -> T:
        """Return an answer that is at most MIN_AGE seconds old. Raises what `ask` raises."""
        while self._asking is not None:
            await self._asking.wait()
        if self._answer is None or trio.current_time() - self._asked_at >= MIN_AGE:
            self._asking = trio.Event()
            try:
                self._answer = await self._ask()
                self._asked_at = trio.current_time()
            finally:
                self._asking.set()
                self._asking = None
        return self._answer


def paced(backend: MonitoringBackend) -> MonitoringBackend:
    """Return `backend` such that neither page is made anew more often than MIN_AGE says."""
    return MonitoringBackend(metrics=Paced(backend.metrics), health=Paced(backend.health))


def standalone_backend(relay: RunningRelay) -> MonitoringBackend:
    """Return the pages of a relay that is one process."""
    certificates, max_keys = relay.resources.certificates, relay.config.monitoring.max_keys
    statuses = () if certificates is None else certificates.statuses
    traffic = KeyTraffic(relay.state, max_keys) if max_keys else None

    async def metrics() -> str:
        totals = None if traffic is None else await traffic.totals()
        snapshot = capture(relay, statuses)
        return render_metrics(snapshot.metrics, with_keys(snapshot.gauges, totals))

    async def health() -> Health:
        # No `capture`, which looks at each client.
        stopping = relay.state.stopping
        return health_of(
            [certificate(status) for status in statuses],
            processes=1,
            accepting=not stopping and relay.descriptors.accepts(trio.current_time()),
            draining=stopping,
        )

    return MonitoringBackend(metrics=metrics, health=health)


def with_keys(gauges: Gauges, totals: Mapping[bytes, tuple[int, int]] | None) -> Gauges:
    """Return `gauges` with the bytes by key, if there are any to show."""
    if totals is None:
        return gauges
    named = {
        "other" if key == OTHER_KEYS else node_public_text(key): both
        for key, both in totals.items()
    }
    return attrs.evolve(
        gauges,
        key_sent_bytes={name: sent for name, (sent, _) in named.items()},
        key_received_bytes={name: received for name, (_, received) in named.items()},
    )


def health_of(
    certificates: Iterable[Certificate], *, processes: int, accepting: bool, draining: bool
) -> Health:
    """Return the health of a relay of which so many processes serve."""
    now = time.time()
    return Health(
        draining=draining,
        processes=processes,
        accepting=accepting and not draining,
        certificates=[
            CertificateHealth(
                name=each.name, seconds_left=each.not_after - now if each.not_after else None
            )
            for each in certificates
        ],
    )
