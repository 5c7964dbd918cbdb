"""The pages of -metrics-addr: /metrics and /healthz, and nothing else. Sans-I/O.

There is no check of who asks: the operator opens the address to whom it is for.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs

from derp.http.message import Answer, Later, Request, Response

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = "application/json"
_FIXED: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    # One answer for each connection: see derp.service.monitoring.
    ("Connection", "close"),
)
_DAY: Final = 86400


@attrs.frozen(kw_only=True)
class CertificateHealth:
    """A certificate to serve."""

    name: str
    """The first of its names."""
    seconds_left: float | None
    """Until it expires; None while there is no certificate."""

    @property
    def days_left(self) -> float | None:
        """Days until it expires, below 0 once it has."""
        return None if self.seconds_left is None else round(self.seconds_left / _DAY, 2)


@attrs.frozen(kw_only=True)
class Health:
    """The health of a relay, as /healthz tells it."""

    draining: bool
    """Whether the relay is stopping."""
    processes: int
    """Processes that serve clients."""
    accepting: bool
    """Whether any of them has room for new connections."""
    certificates: Sequence[CertificateHealth] = ()

    @property
    def trouble(self) -> str:
        """The reason why no client can be served; empty if it can."""
        if self.draining:
            return "draining"
        if not self.processes:
            return "no worker"
        left = [each.seconds_left for each in self.certificates]
        if left and not any(seconds is not None and seconds > 0 for seconds in left):
            return "no certificate"
        return ""


@attrs.frozen(kw_only=True)
class MonitoringBackend:
    """The relay behind these pages. The callables are called anew for each request."""

    metrics: Callable[[], Awaitable[str]]
    """Returns the figures in the Prometheus text format."""
    health: Callable[[], Awaitable[Health]]


def route(backend: MonitoringBackend, request: Request) -> Answer:
    """Answer `request`."""
    pages: dict[str, Answer] = {
        "/metrics": Later(backend.metrics, _show_metrics),
        "/healthz": Later(backend.health, show_health),
    }
    page = pages.get(request.path)
    if page is None:
        return _text(404, "want /metrics or /healthz")
    if request.method not in {"GET", "HEAD"}:
        return _text(405, "want GET or HEAD", ("Allow", "GET, HEAD"))
    return page


def _show_metrics(text: str) -> Response:
    return Response(200, (("Content-Type", PROMETHEUS), *_FIXED), text.encode())


def show_health(health: Health) -> Response:
    """Return the answer of /healthz: 200, or 503 where no client can be served."""
    told = {
        "status": health.trouble or "ok",
        "accepting": health.accepting,
        "draining": health.draining,
        "certificates": [
            {"name": each.name, "days_left": each.days_left} for each in health.certificates
        ],
    }
    body = f"{json.dumps(told)}\n".encode()
    status = 503 if health.trouble else 200
    return Response(status, (("Content-Type", _JSON), *_FIXED), body)


def _text(status: int, message: str, *headers: tuple[str, str]) -> Response:
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return Response(status, (*headers, kind, *_FIXED), f"{message}\n".encode())
