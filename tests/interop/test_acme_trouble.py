"""What goes wrong around an order: the relay says what to do, goes on, and recovers at SIGHUP."""

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.issuing import (
    INTERNAL_ERROR,
    acme_relay,
    hang_up,
    issued,
    renewed,
    shake_with,
)
from tests.interop.pebble import Pebble, pebble
from tests.interop.rawderp import Wire
from tests.interop.relay import Relay, running
from tests.support.derp import upgrade_request

WHIMS = {
    "WFE_NONCEREJECT": "50",  # percent
    "VA_NOSLEEP": "0",
    "VA_SLEEPTIME": "2",  # seconds at most, before each validation
    "AUTHZREUSE": "50",  # percent
    "CHAIN_LENGTH": "3",
    "ALTERNATE_ROOTS": "2",
}


def test_an_authority_with_whims(
    under_test: list[str], binaries: dict[str, Path], is_go: bool, tmp_path: Path
) -> None:
    """It rejects every other nonce, takes its time, and does not always ask again."""
    if is_go:
        pytest.skip("the Go derper asks no other authority than its own")
    with pebble(binaries, tmp_path, whims=WHIMS) as authority:
        relay = acme_relay(under_test, tmp_path, authority, "whims.test", "127.0.0.41")
        with running(relay):
            old = issued(relay, authority)
            assert len(old.chain) == 4
            renewed(relay, authority, old.chain[0])


def test_the_name_leads_elsewhere(under_test: list[str], authority: Pebble, tmp_path: Path) -> None:
    relay = acme_relay(under_test, tmp_path, authority, "astray.test", "127.0.0.42")
    authority.names.point("astray.test", "127.0.0.49")
    with running(relay):
        relay.wait_for_log("no certificate yet.*TCP port 80 of astray.test lead to this relay")
        relay.wait_for_log("no certificate yet.*TCP port 443 of astray.test lead to this relay")
        assert shake_with(relay).alert == INTERNAL_ERROR
        with closing(Wire.connect((relay.host, relay.http_port))) as wire:
            wire.send(upgrade_request(path="/generate_204"))
            assert wire.take_response().status == 204
        authority.names.point("astray.test", relay.host)
        hang_up(relay)
        issued(relay, authority)


def mounted(script: str, certdir: Path) -> list[str]:
    """A command prefix: in a mount namespace of its own, after this shell script with $0.

    Skips the test where that can't be done.
    """
    prefix = ["unshare", "--mount", "--", "sh", "-ec"]
    try:
        subprocess.run(
            [*prefix, f'{script}; exec "$@"', str(certdir), "true"],
            capture_output=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file systems can be mounted here: {error}")
    return [*prefix, f'{script}; exec "$@"', str(certdir)]


def inside(relay: Relay, *command: str) -> None:
    """Run something where the relay has its file systems."""
    assert relay.process
    space = f"--mount=/proc/{relay.process.pid}/ns/mnt"
    subprocess.run(["nsenter", space, "--", *command], timeout=30, check=True)


def test_the_certdir_is_full_and_later_read_only(
    under_test: list[str], authority: Pebble, tmp_path: Path
) -> None:
    """Nothing is ordered that could not be kept, and what is there goes on being served."""
    certdir = tmp_path / "certs"
    certdir.mkdir()
    fill = 'mount -t tmpfs -o size=64k tmpfs "$0"; cp /dev/zero "$0/ballast" 2>/dev/null || :'
    relay = acme_relay(
        *(under_test, tmp_path, authority, "full.test", "127.0.0.43"),
        prefix=mounted(fill, certdir),
    )
    asked = authority.count("POST ")
    with running(relay):
        relay.wait_for_log(f"no certificate yet.*{certdir}.*[Nn]o space left.*free some space")
        assert shake_with(relay).alert == INTERNAL_ERROR
        assert authority.count("POST ") == asked
        inside(relay, "rm", f"{certdir}/ballast")
        hang_up(relay)
        old = issued(relay, authority)

        inside(relay, "mount", "-o", "remount,ro", str(certdir))
        authority.suggest(old.chain[0], hours=-2)
        asked = authority.count("POST ")
        hang_up(relay)
        relay.wait_for_log(f"the old certificate stays in force.*{certdir}.*mount it writable")
        assert shake_with(relay).chain == old.chain
        assert authority.count("POST ") == asked
        inside(relay, "mount", "-o", "remount,rw", str(certdir))
        hang_up(relay)
        issued(relay, authority, other_than=old.chain[0])
