"""Certificates that another process renews: this one serves what is in the files."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from certs.acme.authority import Authority
from certs.acme.store import certificate_file
from certs.files import PairFiles, pair_files
from certs.hostname import IPAddress
from certs.manual import load as load_manual
from certs.metacert import make_metacert
from certs.tasks import watch
from certs.tasks.load import load_followed
from certs.tasks.manager import Certificates
from certs.tasks.plan import ACMEOptions, CertificateSpec, OnDemand, Plan
from certs.tasks.report import FOLLOWS
from certs.tasks.requests import MAX_ON_DEMAND, MAX_WAITING, Ask, ForwardedRequests, Requests
from certs.tasks.status import Status
from derp.net.address import Endpoint
from derp.service.tls import make_contexts
from derp.wire.clienthello import ClientHello
from tests.support.authority import issuer

NOW = datetime.now(UTC)
METACERT = make_metacert(bytes(32), NOW)
ACME = ACMEOptions(
    authority=Authority("https://ca.example/dir"), profile="", challenges=["http-01"]
)
NO_NAME = ClientHello(None, (b"http/1.1",))
SEVEN, EIGHT = ip_address("127.0.0.7"), ip_address("127.0.0.8")


def self_signed(certdir: Path) -> Plan:
    return Plan((CertificateSpec(("192.0.2.7",), pair_files(certdir, "192.0.2.7")),))


def by_acme(certdir: Path) -> Plan:
    file = certificate_file(certdir, "relay.example")
    return Plan((CertificateSpec(("relay.example",), PairFiles(file, file), ACME),))


def on_demand(certdir: Path) -> Plan:
    return Plan((), OnDemand(certdir, ACME, (), public_only=False))


class Other:
    """The process that sees to the files."""

    def __init__(self) -> None:
        self.asked: list[IPAddress] = []
        self.says = True
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def ask(self, address: IPAddress) -> bool:
        self.asked.append(address)
        await self.may_answer.wait()
        return self.says

    def follow(self, plan: Plan, addresses: Iterable[IPAddress] = ()) -> "Follower":
        return Follower(plan, load_followed(plan, addresses, NOW), self.ask)


class Follower:
    """A process that serves what is in the files."""

    def __init__(self, plan: Plan, statuses: list[Status], ask: Ask) -> None:
        self.requests = Requests(plan.on_demand, statuses)
        self.forwarded = ForwardedRequests(self.requests, ask)
        contexts = make_contexts(plan, self.forwarded.add)
        self.engine = contexts.engine
        self.certificates = Certificates(statuses, contexts, self.requests, METACERT, FOLLOWS)
        self.statuses = self.certificates.statuses
        self.wake = self.certificates.wake


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def other() -> Other:
    return Other()


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], None]:
    return issuer(tmp_path)


@pytest.fixture
def run(nursery: trio.Nursery, threads_take_no_time: None) -> Callable[[Follower], None]:
    def run(following: Follower) -> None:
        nursery.start_soon(following.certificates.follow)
        nursery.start_soon(following.forwarded.forward)

    return run


def answers(following: Follower, address: str = "127.0.0.7") -> bool:
    """Whether a client that comes to an address is served; to be served, it is asked for."""
    choose = following.engine.choose
    if choose is None:
        return not hasattr(following.engine.context, "refusal")
    return not hasattr(choose(NO_NAME, Endpoint(address, 443)), "refusal")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG]


@pytest.mark.parametrize("plan", [self_signed, by_acme, on_demand])
async def test_no_pair_is_made(
    tmp_path: Path, other: Other, plan: Callable[[Path], Plan], run: Callable[[Follower], None]
) -> None:
    following = other.follow(plan(tmp_path))
    run(following)
    await trio.testing.wait_all_tasks_blocked()
    assert not answers(following)
    assert not list(await trio.Path(tmp_path).iterdir())


async def test_a_pair_in_the_files_is_served(
    tmp_path: Path, other: Other, put: Callable[[str], None]
) -> None:
    put("relay.example")
    assert answers(other.follow(by_acme(tmp_path)))
    plan = self_signed(tmp_path)
    load_manual(plan.certificates[0].files, ["192.0.2.7"], NOW)
    assert answers(other.follow(plan))


async def test_an_expired_pair_is_neither_replaced_nor_logged(
    tmp_path: Path,
    other: Other,
    caplog: pytest.LogCaptureFixture,
    run: Callable[[Follower], None],
) -> None:
    plan = self_signed(tmp_path)
    load_manual(plan.certificates[0].files, ["192.0.2.7"], NOW - timedelta(days=400))
    key = trio.Path(plan.certificates[0].files.key)
    before = await key.read_bytes()
    following = other.follow(plan)
    run(following)
    await trio.testing.wait_all_tasks_blocked()
    assert answers(following)
    assert await key.read_bytes() == before
    assert logged(caplog) == []


@pytest.mark.parametrize("operators", [True, False])
async def test_damaged_files_end_no_start_and_are_logged(
    tmp_path: Path, other: Other, caplog: pytest.LogCaptureFixture, *, operators: bool
) -> None:
    plan = self_signed(tmp_path)
    plan = Plan((attrs.evolve(plan.certificates[0], operator_managed=operators),))
    plan.certificates[0].files.certificate.write_text("damaged")
    assert not answers(other.follow(plan))
    assert logged(caplog) == ["this process has no certificate to serve"]


async def test_a_pair_that_openssl_refuses_ends_no_start(
    tmp_path: Path, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    plan = self_signed(tmp_path)
    load_manual(plan.certificates[0].files, ["192.0.2.7"], NOW)
    damaged = load_followed(plan, (), NOW)
    assert damaged[0].pair is not None
    damaged[0].pair = attrs.evolve(damaged[0].pair, key_pem=b"")
    assert not answers(Follower(plan, damaged, other.ask))
    assert logged(caplog) == ["this process has no certificate to serve"]


async def test_woken_it_serves_a_new_pair_and_logs_nothing(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    other: Other,
    put: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    run: Callable[[Follower], None],
) -> None:
    following = other.follow(by_acme(tmp_path))
    run(following)
    await trio.sleep(1)
    put("relay.example")
    following.wake()
    await trio.sleep(1)
    assert answers(following)
    assert following.statuses[0].replaced == 1
    following.wake()
    following.statuses[0].certificate.files.key.write_text("damaged")
    await trio.sleep(3 * watch.CHECK_EVERY)
    assert following.statuses[0].failures
    assert answers(following)
    assert logged(caplog) == []


async def test_an_address_is_requested_once_and_served_once_in_the_files(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    other: Other,
    put: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    run: Callable[[Follower], None],
) -> None:
    following = other.follow(on_demand(tmp_path))
    other.may_answer = trio.Event()
    run(following)
    for _ in range(3):
        assert not answers(following)
        await trio.testing.wait_all_tasks_blocked()
    assert other.asked == [SEVEN]
    other.may_answer.set()
    await trio.sleep(1)
    assert not answers(following)
    assert other.asked == [SEVEN]
    put("127.0.0.7")
    following.wake()
    await trio.sleep(1)
    assert answers(following)
    assert logged(caplog) == []


async def test_a_refused_address_is_requested_again_when_clients_return(
    tmp_path: Path, other: Other, run: Callable[[Follower], None]
) -> None:
    following = other.follow(on_demand(tmp_path))
    run(following)
    other.says = False
    for count in (1, 2):
        assert not answers(following)
        await trio.testing.wait_all_tasks_blocked()
        assert len(other.asked) == count
    assert following.statuses == []


async def test_certificates_requested_by_another_worker_are_served(
    tmp_path: Path, other: Other, put: Callable[[str], None], run: Callable[[Follower], None]
) -> None:
    put("127.0.0.7")
    following = other.follow(on_demand(tmp_path), [SEVEN, EIGHT])
    assert answers(following)
    run(following)
    for address in (SEVEN, EIGHT, ip_address("127.0.0.9")):
        following.requests.add(address)
    await trio.testing.wait_all_tasks_blocked()
    assert [status.certificate.names[0] for status in following.statuses] == [
        *("127.0.0.7", "127.0.0.8", "127.0.0.9")
    ]
    assert not answers(following, "127.0.0.8")
    assert other.asked == []


async def test_an_address_that_no_authority_certifies_is_not_passed_on(
    tmp_path: Path, other: Other, run: Callable[[Follower], None]
) -> None:
    plan = Plan((), OnDemand(tmp_path, ACME, (), public_only=True))
    following = other.follow(plan)
    run(following)
    assert not answers(following)
    await trio.testing.wait_all_tasks_blocked()
    assert other.asked == []


async def test_a_network_of_addresses_makes_neither_side_wait(
    tmp_path: Path, other: Other, run: Callable[[Follower], None]
) -> None:
    following = other.follow(on_demand(tmp_path))
    network = ip_address("2001:db8::1")
    for number in range(MAX_ON_DEMAND + 20):
        assert not answers(following, str(network + number))
    run(following)
    await trio.testing.wait_all_tasks_blocked()
    assert len(other.asked) == MAX_WAITING
    for _ in range(MAX_ON_DEMAND):
        for number in range(MAX_ON_DEMAND + 20):
            answers(following, str(network + number))
        await trio.testing.wait_all_tasks_blocked()
    assert len(other.asked) <= MAX_ON_DEMAND + MAX_WAITING
    assert len(following.requests.addresses) == MAX_ON_DEMAND
