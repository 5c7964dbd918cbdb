"""All certificates of a server, from its start on."""

import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from certs.acme.authority import Authority
from certs.acme.store import certificate_file
from certs.errors import CertificateError, UnusablePairError
from certs.files import PairFiles, pair_files
from certs.manual import load as load_manual
from certs.metacert import make_metacert
from certs.selfsigned import make_self_signed
from certs.tasks import load as load_module
from certs.tasks import manager
from certs.tasks.load import load
from certs.tasks.manager import Certificates
from certs.tasks.plan import ACMEOptions, CertificateSpec, OnDemand, Plan
from certs.tasks.requests import MAX_ON_DEMAND
from derp.net.address import Endpoint
from derp.service.tls import ServerContexts, make_certificates
from derp.wire.clienthello import ClientHello
from tests.support.authority import issuer, refuse_orders
from tests.support.waiting import until_async

NOW = datetime.now(UTC)
METACERT = make_metacert(bytes(32), NOW)
ACME = ACMEOptions(
    authority=Authority("https://ca.example/dir"), profile="", challenges=["http-01"]
)
NO_NAME = ClientHello(None, (b"http/1.1",))


def manual(certdir: Path, hostname: str = "192.0.2.7") -> Plan:
    return Plan((CertificateSpec((hostname,), pair_files(certdir, hostname)),))


def by_acme(certdir: Path, name: str = "relay.example") -> Plan:
    file = certificate_file(certdir, name)
    return Plan((CertificateSpec((name,), PairFiles(file, file), ACME),))


def on_demand(certdir: Path) -> Plan:
    return Plan((), OnDemand(certdir, ACME, (), public_only=False))


def start(plan: Plan) -> Certificates[ServerContexts]:
    return make_certificates(plan, load(plan, NOW), METACERT)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], None]:
    return issuer(tmp_path)


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The names that an authority, which issues nothing, is asked for."""
    return refuse_orders(monkeypatch)


until = partial(until_async, "the certificates are as wanted")


def nothing(_pair: object) -> None:
    """Announce nothing."""


def test_an_address_in_the_manual_mode_gets_its_pair_at_the_start(tmp_path: Path) -> None:
    certificates = start(manual(tmp_path))
    (status,) = certificates.statuses
    assert status.pair is not None
    assert status.pair.self_signed
    assert not hasattr(certificates.contexts.engine.context, "refusal")
    assert certificates.contexts.engine.choose is None


def test_a_name_without_files_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"relay\.example\.crt: no such file"):
        start(manual(tmp_path, "relay.example"))


def test_files_of_the_operators_are_never_made(tmp_path: Path) -> None:
    files = attrs.evolve(pair_files(tmp_path, "192.0.2.7"), flag="-tls-cert")
    plan = Plan((CertificateSpec(("192.0.2.7",), files, operator_managed=True),))
    with pytest.raises(CertificateError, match="or point -tls-cert elsewhere"):
        start(plan)
    assert not list(tmp_path.iterdir())


async def test_expired_files_of_the_operators_are_never_replaced(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    files = pair_files(tmp_path, "192.0.2.7")
    load_manual(files, ["192.0.2.7"], NOW - timedelta(days=400))
    before = files.key.read_bytes()
    certificates = start(Plan((CertificateSpec(("192.0.2.7",), files, operator_managed=True),)))
    nursery.start_soon(certificates.run, nothing)
    await trio.testing.wait_all_tasks_blocked(0.1)
    assert files.key.read_bytes() == before


def test_a_stored_certificate_is_served_from_the_start(
    tmp_path: Path, put: Callable[[str], None]
) -> None:
    put("relay.example")
    certificates = start(by_acme(tmp_path))
    assert certificates.statuses[0].pair is not None
    assert not hasattr(certificates.contexts.engine.context, "refusal")


def test_a_certificate_that_is_not_there_yet_is_awaited(tmp_path: Path) -> None:
    certificates = start(by_acme(tmp_path))
    assert certificates.statuses[0].pair is None
    refusal = certificates.contexts.engine.context.refusal  # type: ignore[attr-defined]
    assert refusal == "there is no certificate for relay.example yet"


def test_a_damaged_file_is_logged_and_ordered_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = by_acme(tmp_path)
    plan.certificates[0].files.key.write_bytes(b"damaged")
    plan.certificates[0].files.key.chmod(0o600)
    assert start(plan).statuses[0].pair is None
    (record,) = caplog.records
    assert record.getMessage() == "a certificate can't be served and is ordered anew"


def test_a_pair_that_openssl_refuses_is_ordered_anew(
    tmp_path: Path, put: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> ssl.SSLContext:
        raise UnusablePairError("too weak")

    put("relay.example")
    monkeypatch.setattr(manager, "make_context", refuse)
    certificates = start(by_acme(tmp_path))
    assert certificates.statuses[0].pair is None
    assert hasattr(certificates.contexts.engine.context, "refusal")
    with pytest.raises(UnusablePairError):
        start(manual(tmp_path))


async def test_a_pair_that_is_written_is_served(
    tmp_path: Path, put: Callable[[str], None], orders: list[object], nursery: trio.Nursery
) -> None:
    certificates = start(by_acme(tmp_path))
    nursery.start_soon(certificates.run, nothing)
    await until(lambda: orders)
    put("relay.example")
    certificates.wake()
    engine = certificates.contexts.engine
    # The task that serves it and the one that notes it take turns in any order.
    await until(lambda: certificates.statuses[0].pair and not hasattr(engine.context, "refusal"))
    assert not hasattr(engine.context, "refusal")


async def test_woken_it_tries_again_at_once(
    tmp_path: Path, orders: list[object], nursery: trio.Nursery
) -> None:
    certificates = start(by_acme(tmp_path))
    nursery.start_soon(certificates.run, nothing)
    for count in (1, 2, 3):
        await until(lambda count=count: len(orders) == count)
        certificates.wake()


async def test_an_expired_self_signed_pair_is_replaced_while_it_runs(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = NOW - timedelta(days=400)
    plan = manual(tmp_path)
    old = load_manual(plan.certificates[0].files, ["192.0.2.7"], long_ago)
    # As if it had expired since the start.
    certificates = make_certificates(plan, load(plan, long_ago), METACERT)
    announced: list[Any] = []
    nursery.start_soon(certificates.run, announced.append)
    await until(lambda: announced)
    assert certificates.statuses[0].pair is announced[0]
    assert announced[0].pin != old.pin


async def test_a_certificate_is_requested_when_a_client_connects_to_an_address(
    tmp_path: Path, orders: list[object], nursery: trio.Nursery
) -> None:
    certificates = start(on_demand(tmp_path))
    nursery.start_soon(certificates.run, nothing)
    choose = certificates.contexts.engine.choose
    assert choose is not None
    for _ in range(3):
        assert hasattr(choose(NO_NAME, Endpoint("127.0.0.7", 443)), "refusal")
    await until(lambda: orders)
    assert orders == [("127.0.0.7",)]
    assert [status.certificate.names for status in certificates.statuses] == [("127.0.0.7",)]


@pytest.mark.parametrize("address", ["127.0.0.7", "2001:db8::7"])
def test_certificates_of_an_earlier_run_are_served_from_the_start(
    tmp_path: Path, put: Callable[[str], None], address: str
) -> None:
    put(address)
    put("relay.example")
    (tmp_path / "127.0.0.8").write_bytes(b"damaged")
    (tmp_path / "127.0.0.9").mkdir()
    certificates = start(on_demand(tmp_path))
    assert [status.certificate.names for status in certificates.statuses] == [(address,)]
    choose = certificates.contexts.engine.choose
    assert choose is not None
    assert not hasattr(choose(NO_NAME, Endpoint(address, 443)), "refusal")


def test_a_ca_bundle_without_certificates_ends_the_start(tmp_path: Path) -> None:
    (certificate,) = by_acme(tmp_path).certificates
    authority = Authority("https://ca.example/dir", ca_bundle=tmp_path / "absent.pem")
    acme = attrs.evolve(ACME, authority=authority)
    demand = OnDemand(tmp_path, acme, (), public_only=False)
    for plan in (Plan((attrs.evolve(certificate, acme=acme),)), Plan((), demand)):
        with pytest.raises(CertificateError, match="-acme-ca-bundle"):
            start(plan)


def test_a_certdir_that_is_no_directory_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "certs").write_text("")
    for plan in (by_acme(tmp_path / "certs"), on_demand(tmp_path / "certs")):
        with pytest.raises(CertificateError, match=r"-certdir .*: not a directory"):
            start(plan)


def test_a_certdir_that_can_t_be_entered_is_logged_and_tried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    plan = by_acme(tmp_path / "certs")
    statuses = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", lambda _: True)
        patch.setattr(load_module, "_check_directory", lambda _: None)
        patch.setattr(Path, "lstat", closed)
        statuses = load(plan, NOW)
    assert statuses[0].pair is None
    assert "can't be examined (Permission denied)" in caplog.records[0].fields["reason"]  # type: ignore[attr-defined]


async def test_a_pair_that_appears_is_served_without_an_order(
    tmp_path: Path, put: Callable[[str], None], orders: list[object], nursery: trio.Nursery
) -> None:
    certificates = start(on_demand(tmp_path))
    put("127.0.0.7")
    nursery.start_soon(certificates.run, nothing)
    choose = certificates.contexts.engine.choose
    assert choose is not None
    here = Endpoint("127.0.0.7", 443)
    assert hasattr(choose(NO_NAME, here), "refusal")
    statuses = certificates.statuses
    await until(lambda: not hasattr(choose(NO_NAME, here), "refusal") and statuses[0].replaced)
    assert certificates.statuses[0].replaced == 1


async def test_a_machine_with_a_whole_network_of_addresses_has_some_of_them_certified(
    tmp_path: Path, orders: list[object], nursery: trio.Nursery
) -> None:
    certificates = start(on_demand(tmp_path))
    choose = certificates.contexts.engine.choose
    assert choose is not None
    network = ip_address("2001:db8::1")
    for number in range(MAX_ON_DEMAND + 20):
        assert hasattr(choose(NO_NAME, Endpoint(str(network + number), 443)), "refusal")
    nursery.start_soon(certificates.run, nothing)
    await until(lambda: len(orders) >= MAX_ON_DEMAND)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(certificates.statuses) == MAX_ON_DEMAND


def test_a_server_for_addresses_only_knows_no_names(tmp_path: Path) -> None:
    plan = by_acme(tmp_path, "192.0.2.7")
    certificates = start(attrs.evolve(plan, on_demand=on_demand(tmp_path).on_demand))
    assert "for addresses only" in certificates.contexts.engine.context.refusal  # type: ignore[attr-defined]


def test_nothing_secret_is_logged(
    tmp_path: Path, put: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chain, key = make_self_signed(ip_address("192.0.2.7"), NOW)
    (tmp_path / "relay.example").write_bytes(key + chain)
    start(by_acme(tmp_path))
    assert "PRIVATE" not in caplog.text
