"""The DNS records of an order, when the order is cancelled, and what is checked at the start."""

import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from certs.acme.authority import Authority
from certs.dns01.options import DNSOptions
from certs.errors import CertificateFileError
from certs.tasks import dnsrecords, renewal
from certs.tasks.clock import wall_clock
from certs.tasks.load import load
from certs.tasks.plan import ACMEOptions, Plan, acme_certificate
from certs.tasks.presenter import LocalPresenter
from certs.tasks.renewal import ORDER_TIMEOUT, Renewal
from certs.tasks.status import Status
from derp.net.tlsengine import TLSEngine
from derp.service.tls import ServerContexts

OPTIONS = DNSOptions(program=Path("/hook"), wait=100.0)


@attrs.define
class Records:
    present: object = "presents"
    stop: threading.Event = attrs.Factory(threading.Event)
    none_left: threading.Event = attrs.Factory(threading.Event)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    records = Records()
    monkeypatch.setattr(dnsrecords, "make_records", lambda *_: records)
    return records


async def test_a_cancelled_order_waits_until_its_records_are_removed(
    records: Records, tmp_path: Path
) -> None:
    is_there, ended = trio.Event(), trio.Event()

    async def order() -> None:
        async with dnsrecords.presented(OPTIONS, tmp_path) as present:
            assert present == "presents"
            is_there.set()
            await trio.sleep_forever()

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            await order()
        ended.set()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, scope)
        await is_there.wait()
        assert not records.stop.is_set()
        scope.cancel()
        assert await trio.to_thread.run_sync(records.stop.wait, 30.0)
        assert not ended.is_set()
        records.none_left.set()
        with trio.fail_after(30.0):
            await ended.wait()


async def test_an_order_without_records_left_waits_for_nothing(
    records: Records, tmp_path: Path
) -> None:
    records.none_left.set()
    with trio.CancelScope() as scope:
        async with dnsrecords.presented(OPTIONS, tmp_path):
            scope.cancel()
    assert records.stop.is_set()


async def test_an_order_by_dns_has_more_time_and_its_own_presenter(
    records: Records, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.none_left.set()
    acme = ACMEOptions(
        authority=Authority("https://ca.example/dir"),
        profile="",
        challenges=["dns-01"],
        dns=OPTIONS,
    )
    (tmp_path / ".acme.records").touch()
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()
    calls: list[dict[str, Any]] = []
    left: list[object] = []

    def obtain(_request: object, kind: str, **how: Any) -> bool:
        calls.append({"kind": kind, **how})
        trio.from_thread.run_sync(done.set, trio_token=token)
        return False

    monkeypatch.setattr(renewal, "obtain", obtain)
    monkeypatch.setattr(dnsrecords, "_remove_leftovers", lambda *given: left.append(given))
    certificate = acme_certificate(tmp_path, ("*.relay.example",), acme)
    assert certificate.files.certificate.name == "_.relay.example"
    status = Status(certificate, None)
    here = LocalPresenter(ServerContexts(TLSEngine(None)))  # type: ignore[arg-type]
    check_files, _ = trio.open_memory_channel[None](1)
    _, wakes = trio.open_memory_channel[None](1)
    nursery.start_soon(Renewal(acme, status, here, check_files).run, wakes)
    with trio.fail_after(30.0):
        await done.wait()
    (call,) = calls
    assert left == [(OPTIONS, tmp_path)]
    assert (call["kind"], call["present"]) == ("dns-01", "presents")
    assert call["timeout"] == ORDER_TIMEOUT + OPTIONS.longest
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"program": "/none/hook"}, "-acme-dns-exec /none/hook: no such file; name a program with"),
        ({"program": "/etc/passwd"}, "-acme-dns-exec /etc/passwd: this user may not run it; run: "),
        (
            {"program": "/bin/true", "cleanup_program": "/none"},
            "-acme-dns-exec-cleanup /none: no such file",
        ),
        (
            {"program": "/bin/true", "credentials": "/none"},
            "-acme-dns-credentials /none: can't be read (No such file or directory); name",
        ),
        ({"provider": "rfc2136"}, "-acme-dns rfc2136: RFC2136_TSIG_KEY is not set; give"),
    ],
)
def test_what_can_t_work_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], says: str
) -> None:
    monkeypatch.delenv("RFC2136_TSIG_KEY", raising=False)
    paths = {name: text if name == "provider" else Path(text) for name, text in options.items()}
    acme = ACMEOptions(
        authority=Authority("https://ca.example/dir"),
        profile="",
        challenges=["dns-01"],
        dns=DNSOptions(wait=1.0, **paths),  # type: ignore[arg-type]
    )
    plan = Plan((acme_certificate(tmp_path, ("relay.example",), acme),))
    with pytest.raises(CertificateFileError) as caught:
        load(plan, wall_clock())
    assert str(caught.value).startswith(says)
    assert str(caught.value).isprintable()
