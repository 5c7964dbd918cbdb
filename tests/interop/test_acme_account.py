"""Accounts: those that an authority binds to others of its own, and a key that is damaged."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.interop.issuing import INTERNAL_ERROR, acme_relay, hang_up, issued, shake_with
from tests.interop.pebble import Pebble, pebble
from tests.interop.relay import Relay, running

KID, KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
WRONG_KEY = KEY[::-1]


@pytest.fixture(scope="module")
def choosy(
    binaries: dict[str, Path], is_go: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pebble]:
    """An authority that registers only whom it knows otherwise."""
    if is_go:
        pytest.skip("the Go derper asks no other authority than its own")
    with pebble(binaries, tmp_path_factory.mktemp("choosy"), accounts={KID: KEY}) as started:
        yield started


@pytest.fixture
def external(
    under_test: list[str], choosy: Pebble, tmp_path: Path
) -> Callable[..., AbstractContextManager[Relay]]:
    """A relay that runs with these flags."""

    def run(*flags: str, **fields: object) -> AbstractContextManager[Relay]:
        at = (choosy, "bound.test", "127.0.0.31")
        return running(acme_relay(under_test, tmp_path, *at, *flags, **fields))

    return run


def test_the_external_account_is_needed(
    external: Callable[..., AbstractContextManager[Relay]], choosy: Pebble
) -> None:
    """And said to be; with the right key for it there is a certificate, as with Google's."""
    with external() as relay:
        relay.wait_for_log("no certificate yet.*-acme-eab-kid and -acme-eab-key")
        assert shake_with(relay).alert == INTERNAL_ERROR
    flags = ("-acme-eab-kid", KID, "-acme-eab-key", KEY, "-acme-email", "derp@example.org")
    with external(*flags, certmode="gcp") as relay:
        issued(relay, choosy)
    assert choosy.count(f'Successful newAccount Binding with CA using kid "{KID}"') == 1
    assert KEY not in relay.log


def test_the_external_account_has_another_key(
    external: Callable[..., AbstractContextManager[Relay]], choosy: Pebble
) -> None:
    with external("-acme-eab-kid", KID, "-acme-eab-key", WRONG_KEY) as relay:
        relay.wait_for_log("no certificate yet.*-acme-eab-kid and -acme-eab-key")
        assert shake_with(relay).alert == INTERNAL_ERROR
    assert WRONG_KEY not in relay.log


def test_a_truncated_account_key(under_test: list[str], authority: Pebble, tmp_path: Path) -> None:
    """It is not overwritten, and the certificate that is there goes on being served."""
    relay = acme_relay(under_test, tmp_path, authority, "cut.test", "127.0.0.32")
    with running(relay):
        old = issued(relay, authority)
    authority.suggest(old.chain[0], hours=-2)
    file = relay.certdir / "acme_account+key"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    orders = authority.orders
    with running(relay):
        relay.wait_for_log(r"the old certificate stays in force.*acme_account\+key")
        assert shake_with(relay).chain == old.chain
        assert file.read_bytes() == whole[:100]
        assert authority.orders == orders
        file.write_bytes(whole)
        hang_up(relay)
        issued(relay, authority, other_than=old.chain[0])
