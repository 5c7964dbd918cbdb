"""The pages for monitors: which there are, and when a relay is healthy."""

import json

import pytest

from derp.http.message import Later, Request, Response, parse_request
from derp.http.monitoring import CertificateHealth, Health, MonitoringBackend, route, show_health
from tests.http.sites import returning

DAY = 86400
FINE = Health(draining=False, processes=1, accepting=True)


def certificate(seconds_left: float | None) -> CertificateHealth:
    return CertificateHealth(name="derp.example", seconds_left=seconds_left)


def health(*left: float | None, draining: bool = False, processes: int = 1) -> Health:
    return Health(
        draining=draining,
        processes=processes,
        accepting=not draining,
        certificates=[certificate(seconds) for seconds in left],
    )


def request(path: str, method: str = "GET") -> Request:
    return parse_request(
        method.encode(), path.encode(), b"1.1", [(b"host", b"evil.example")], "203.0.113.7"
    )


async def ask(path: str, method: str = "GET") -> Response:
    backend = MonitoringBackend(metrics=returning("x 1\n"), health=returning(FINE))
    answer = route(backend, request(path, method))
    if isinstance(answer, Later):
        answer = answer.show(await answer.ask())
    assert isinstance(answer, Response)
    return answer


async def test_metrics_are_served_to_whoever_asks() -> None:
    answer = await ask("/metrics")
    assert (answer.status, answer.body) == (200, b"x 1\n")
    # Prometheus 3 refuses a page without a type that it knows.
    assert dict(answer.headers)["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (await ask("/metrics?x=1")).status == 200
    assert (await ask("/metrics", "HEAD")).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/debug/", "/debug/varz", "/derp", "/metrics/", "/%6detrics", "//metrics", "*"]
)
async def test_nothing_else_is_served(path: str) -> None:
    method = "OPTIONS" if path == "*" else "GET"
    assert (await ask(path, method)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "X"])
async def test_other_methods_are_refused(method: str) -> None:
    for path in ("/metrics", "/healthz"):
        answer = await ask(path, method)
        assert (answer.status, dict(answer.headers)["Allow"]) == (405, "GET, HEAD")
    assert (await ask("/", method)).status == 404


async def test_a_healthy_relay() -> None:
    answer = await ask("/healthz")
    assert answer.status == 200
    assert dict(answer.headers)["Content-Type"] == "application/json"
    told = {"status": "ok", "accepting": True, "draining": False, "certificates": []}
    assert json.loads(answer.body) == told


@pytest.mark.parametrize(
    ("found", "trouble"),
    [
        (health(), ""),
        (health(DAY), ""),
        # One that can be served is enough.
        (health(None, -1.0, DAY), ""),
        (health(None), "no certificate"),
        (health(-1.0), "no certificate"),
        (health(0.0, None), "no certificate"),
        (health(DAY, draining=True), "draining"),
        (health(DAY, processes=0), "no worker"),
    ],
)
def test_where_no_client_can_be_served_it_is_503(found: Health, trouble: str) -> None:
    answer = show_health(found)
    assert answer.status == (503 if trouble else 200)
    assert json.loads(answer.body)["status"] == (trouble or "ok")


def test_the_days_of_each_certificate_are_told() -> None:
    told = json.loads(show_health(health(1.5 * DAY, None, -DAY)).body)
    assert [each["days_left"] for each in told["certificates"]] == [1.5, None, -1.0]
    assert told["certificates"][0]["name"] == "derp.example"


def test_a_relay_without_room_is_told_and_left_alone() -> None:
    """To be restarted for that would cost all clients their connections."""
    full = Health(draining=False, processes=1, accepting=False)
    answer = show_health(full)
    assert (answer.status, json.loads(answer.body)["accepting"]) == (200, False)
