"""Certificates that the supervisor has ordered, served by workers, over calls between them."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from certs.acme.answer import make_challenge
from certs.acme.authority import Authority
from certs.acme.challenge import Challenge, Kind
from certs.acme.store import certificate_file
from certs.errors import CertificateFileError
from certs.files import PairFiles
from certs.metacert import make_metacert
from certs.tasks.load import load
from certs.tasks.plan import ACMEOptions, CertificateSpec, OnDemand, Plan
from derp.net.address import Endpoint
from derp.service.tls import make_certificates
from derp.wire.clienthello import ClientHello
from derp.workers import certificates as workers_certificates
from derp.workers.certificates import SupervisorCertificates, WorkerCertificates, follow
from tests.support.authority import issuer, refuse_orders
from tests.support.threads import run_at_once
from tests.workers.ends import ANSWER_TIMEOUT, Line, Pool, through_json

Clock = trio.testing.MockClock
NOW = datetime.now(UTC)
METACERT = make_metacert(bytes(32), NOW)
ACME = ACMEOptions(
    authority=Authority("https://ca.example/dir"), profile="", challenges=["http-01"]
)
NAME = "relay.example"


class Relay:
    """A supervisor, and workers that start when told to."""

    def __init__(self, certdir: Path, nursery: trio.Nursery) -> None:
        file = certificate_file(certdir, NAME)
        certificate = CertificateSpec((NAME,), PairFiles(file, file), ACME)
        self.plan = Plan((certificate,), OnDemand(certdir, ACME, (), public_only=False))
        self.pool = Pool(None, None)
        self.certificates = make_certificates(self.plan, load(self.plan, NOW), METACERT)
        self.shared = SupervisorCertificates(self.certificates, self.pool)
        self.line = Line(self.shared.handlers)
        self._nursery = nursery

    def supervise(self) -> None:
        self._nursery.start_soon(self.shared.run, lambda _pair: None)

    def start(self, index: int) -> WorkerCertificates:
        handover = through_json(self.shared.handover())
        worker = follow(self.plan, handover, METACERT, NOW, self.line.call)
        self.pool.workers[index] = worker.handlers
        self._nursery.start_soon(worker.run)
        return worker

    def start_both(self) -> list[WorkerCertificates]:
        return [self.start(0), self.start(1)]


@pytest.fixture
async def relay(
    autojump_clock: Clock,
    tmp_path: Path,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Relay:
    run_at_once(monkeypatch)
    caplog.set_level(logging.DEBUG)
    return Relay(tmp_path, nursery)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], None]:
    return issuer(tmp_path)


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The names that an authority, which issues nothing, is asked for."""
    return refuse_orders(monkeypatch)


def a_challenge(kind: Kind, name: str = NAME) -> Challenge:
    return make_challenge(kind, name, "token", "token.thumb", NOW)


def answers(worker: WorkerCertificates, kind: Kind) -> bool:
    """Whether the authority would get an answer from a worker."""
    contexts = worker.certificates.contexts
    if kind == "http-01":
        return contexts.http_challenges == {"token": "token.thumb"}
    choose = contexts.engine.choose
    hello = ClientHello(NAME, (b"acme-tls/1",))
    if choose is None:
        return False
    return not hasattr(choose(hello, Endpoint("127.0.0.7", 443)), "refusal")


def serves(worker: WorkerCertificates, address: str | None = None) -> bool:
    """Whether a worker serves the name, or an address; to be served, that is asked for."""
    choose = worker.certificates.contexts.engine.choose
    assert choose is not None
    hello = ClientHello(NAME if address is None else None, (b"http/1.1",))
    context = choose(hello, Endpoint(address or "127.0.0.1", 443))
    return not hasattr(context, "refusal")


KINDS = pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])


@KINDS
async def test_a_challenge_is_answered_by_all_until_it_is_hidden(
    autojump_clock: Clock, relay: Relay, kind: Kind
) -> None:
    workers = relay.start_both()
    challenge = a_challenge(kind)
    await relay.shared.show(challenge)
    assert [answers(worker, kind) for worker in workers] == [True, True]
    await relay.shared.hide(challenge)
    assert [answers(worker, kind) for worker in workers] == [False, False]
    await relay.shared.hide(challenge)


@KINDS
async def test_a_worker_that_starts_meanwhile_answers_from_its_start(
    autojump_clock: Clock, relay: Relay, kind: Kind
) -> None:
    challenge = a_challenge(kind)
    await relay.shared.show(challenge)
    worker = relay.start(1)
    assert answers(worker, kind)
    await relay.shared.hide(challenge)
    assert not answers(worker, kind)
    assert not answers(relay.start(0), kind)


async def test_a_challenge_shown_twice_is_answered_once(
    autojump_clock: Clock, relay: Relay
) -> None:
    challenge = a_challenge("tls-alpn-01")
    await relay.shared.show(challenge)
    worker = relay.start(0)
    ((_, body),) = relay.pool.said
    await worker.handlers["certificates.show"](body)
    assert answers(worker, "tls-alpn-01")
    await relay.shared.hide(challenge)
    assert not answers(worker, "tls-alpn-01")


@KINDS
async def test_a_late_worker_holds_no_order_up(
    autojump_clock: Clock, relay: Relay, kind: Kind
) -> None:
    one, two = relay.start_both()
    relay.pool.late = {1}
    challenge = a_challenge(kind)
    await relay.shared.show(challenge)
    assert trio.current_time() == ANSWER_TIMEOUT
    assert answers(one, kind)
    assert not answers(two, kind)
    relay.pool.late = set()
    await relay.shared.hide(challenge)
    assert not answers(one, kind)


async def test_what_was_hidden_before_it_could_be_shown_stays_hidden(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = relay.start(0)
    go_on = trio.Event()

    async def slow(work: Any, *args: object, **_: object) -> object:
        await go_on.wait()
        return work(*args)

    monkeypatch.setattr("trio.to_thread.run_sync", slow)
    challenge = a_challenge("tls-alpn-01")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.shared.show, challenge)
        await trio.testing.wait_all_tasks_blocked()
        ((_, body),) = relay.pool.said
        nursery.start_soon(worker.handlers["certificates.show"], {**body, "id": 9})
        await trio.testing.wait_all_tasks_blocked()
        await worker.handlers["certificates.hide"](9)
        await worker.handlers["certificates.hide"](body["id"])
        go_on.set()
    assert not answers(worker, "tls-alpn-01")


async def test_a_challenge_that_can_t_be_answered_ends_no_worker(
    autojump_clock: Clock,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: object) -> object:
        raise CertificateFileError("no place for the key")

    monkeypatch.setattr(workers_certificates, "make_challenge_context", refuse)
    worker = relay.start(0)
    await relay.shared.show(a_challenge("tls-alpn-01"))
    assert not answers(worker, "tls-alpn-01")
    assert not answers(relay.start(1), "tls-alpn-01")
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("a challenge can't be answered") == 2


async def test_what_is_no_pair_ends_no_worker(autojump_clock: Clock, relay: Relay) -> None:
    told = {"id": 1, "server_name": NAME, "chain": "none", "key": "none"}
    part = {"addresses": [], "challenges": [told]}
    worker = follow(relay.plan, part, METACERT, NOW, relay.line.call)
    await worker.handlers["certificates.show"]({**told, "id": 2})
    await worker.handlers["certificates.hide"](2)
    assert not answers(worker, "tls-alpn-01")


async def test_only_the_key_of_a_challenge_is_sent_and_none_is_logged(
    autojump_clock: Clock,
    relay: Relay,
    put: Callable[[str], None],
    orders: list[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(NAME)
    relay.supervise()
    relay.start_both()
    await trio.sleep(1.0)
    put(NAME)
    await relay.shared.wake()
    await trio.sleep(1.0)
    assert "PRIVATE" not in json.dumps([relay.pool.said, relay.shared.handover()])
    challenge = a_challenge("tls-alpn-01")
    await relay.shared.show(challenge)
    worker = relay.start(1)
    assert "PRIVATE" in json.dumps(relay.pool.said)
    assert "PRIVATE" not in repr([worker._shown, relay.certificates.statuses])
    assert "PRIVATE" not in caplog.text


async def test_a_new_pair_is_served_by_all_and_logged_once(
    autojump_clock: Clock,
    relay: Relay,
    put: Callable[[str], None],
    orders: list[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay.supervise()
    workers = relay.start_both()
    await trio.sleep(1.0)
    assert orders == [(NAME,)]
    assert not any(serves(worker) for worker in workers)
    put(NAME)
    # As the task does that has ordered.
    relay.certificates.wake()
    await trio.sleep(1.0)
    assert all(serves(worker) for worker in workers)
    told = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert [record.getMessage() for record in told].count("new certificate") == 1
    assert relay.line.asked == []


async def test_at_sighup_all_look(
    autojump_clock: Clock, relay: Relay, put: Callable[[str], None], orders: list[object]
) -> None:
    worker = relay.start(0)
    await trio.sleep(1.0)
    put(NAME)
    await relay.shared.wake()
    await trio.sleep(1.0)
    assert serves(worker)


async def test_an_address_requested_by_one_worker_is_ordered_once_and_served_by_all(
    autojump_clock: Clock, relay: Relay, put: Callable[[str], None], orders: list[tuple[str, ...]]
) -> None:
    put(NAME)
    relay.supervise()
    one, two = relay.start_both()
    assert not serves(one, "127.0.0.7")
    await trio.sleep(1.0)
    assert orders.count(("127.0.0.7",)) == 1
    assert relay.line.asked == ["certificates.request"]
    assert not serves(one, "127.0.0.7")
    put("127.0.0.7")
    relay.certificates.wake()
    await trio.sleep(1.0)
    assert serves(one, "127.0.0.7")
    assert serves(two, "127.0.0.7")
    assert serves(relay.start(0), "127.0.0.7")
    await trio.sleep(1.0)
    assert relay.line.asked == ["certificates.request"]


async def test_one_that_starts_before_the_certificate_is_there_serves_it_then(
    autojump_clock: Clock, relay: Relay, put: Callable[[str], None], orders: list[tuple[str, ...]]
) -> None:
    relay.supervise()
    one = relay.start(0)
    serves(one, "127.0.0.7")
    await trio.sleep(1.0)
    two = relay.start(1)
    assert [status.certificate.names[0] for status in two.certificates.statuses] == [
        *(NAME, "127.0.0.7")
    ]
    put("127.0.0.7")
    relay.certificates.wake()
    await trio.sleep(1.0)
    assert serves(two, "127.0.0.7")


async def test_where_the_supervisor_can_t_be_asked_the_next_client_has_it_asked_again(
    autojump_clock: Clock, relay: Relay, orders: list[tuple[str, ...]]
) -> None:
    relay.supervise()
    worker = relay.start(0)
    relay.line.lost = True
    serves(worker, "127.0.0.7")
    await trio.sleep(1.0)
    relay.line.lost = False
    assert ("127.0.0.7",) not in orders
    serves(worker, "127.0.0.7")
    await trio.sleep(1.0)
    assert ("127.0.0.7",) in orders


@pytest.mark.parametrize("body", ["relay.example", ""])
async def test_what_is_no_address_is_not_ordered(
    autojump_clock: Clock, relay: Relay, body: str
) -> None:
    assert await relay.shared.handlers["certificates.request"](body) is False
