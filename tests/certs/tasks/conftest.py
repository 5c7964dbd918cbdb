"""Pairs, and certificates that are kept in tmp_path."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from certs.files import PairFiles
from certs.pair import Pair
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from certs.tasks.plan import CertificateSpec
from certs.tasks.status import Status
from tests.support.threads import run_at_once


@pytest.fixture
def a_pair() -> Callable[[], Pair]:
    def make() -> Pair:
        chain, key = make_self_signed(ip_address("192.0.2.7"), datetime.now(UTC))
        return make_pair(chain, key, chain_from="test", key_from="test")

    return make


@pytest.fixture
def certificate(tmp_path: Path) -> CertificateSpec:
    return CertificateSpec(
        ("192.0.2.7",), PairFiles(tmp_path / "192.0.2.7.crt", tmp_path / "192.0.2.7.key")
    )


class Time:
    """A time of day that goes with Trio's clock, and can be set."""

    def __init__(self, start: datetime) -> None:
        self._offset = start - timedelta(seconds=trio.current_time())

    def __call__(self) -> datetime:
        return self._offset + timedelta(seconds=trio.current_time())

    def step(self, by: timedelta) -> None:
        self._offset += by


@pytest.fixture
def threads_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what is for a thread at once: a clock that jumps would jump while a thread works."""

    run_at_once(monkeypatch)


@pytest.fixture
def make_time() -> type[Time]:
    return Time


@pytest.fixture
def status(certificate: CertificateSpec, a_pair: Callable[[], Pair]) -> Status:
    return Status(certificate, a_pair())
