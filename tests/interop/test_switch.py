"""An operator may go from the Go derper to ours and back, and no client notices."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.rawderp import Wire
from tests.interop.relay import Relay, certificate_chain, running
from tests.support.derp import MAGIC, SERVER_KEY, UPGRADE, upgrade_request


def public_key(relay: Relay) -> bytes:
    """The key that a relay without TLS greets with."""
    with closing(Wire.connect((relay.host, relay.port))) as wire:
        wire.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1"))
        kind, payload = wire.take_frame()
    assert kind == SERVER_KEY
    assert payload.startswith(MAGIC)
    return payload[len(MAGIC) :]


@pytest.fixture(params=["from Go to ours", "from ours to Go"])
def switch(
    request: pytest.FixtureRequest, under_test: list[str], binaries: dict[str, Path]
) -> tuple[list[str], list[str]]:
    """The command that runs first, and the one that takes over."""
    go = [str(binaries["derper"])]
    return (go, under_test) if request.param == "from Go to ours" else (under_test, go)


def test_the_key_stays(switch: tuple[list[str], list[str]], tmp_path: Path) -> None:
    keys, files = [], []
    for command in (*switch, switch[0]):
        with running(Relay("relay", command, tmp_path, tls=False)) as relay:
            keys.append(public_key(relay))
            files.append(relay.key_file.read_text())
            assert relay.key_file.stat().st_mode & 0o777 == 0o600
    assert len(set(keys)) == 1
    assert len(set(files)) == 1
    assert list(json.loads(files[0])) == ["PrivateKey"]


def test_the_pinned_certificate_stays(switch: tuple[list[str], list[str]], tmp_path: Path) -> None:
    pins = []
    for command in (*switch, switch[0]):
        with running(Relay("relay", command, tmp_path, hostname="127.0.0.1")) as relay:
            leaf, meta = certificate_chain(relay)
            pins.append(hashlib.sha256(leaf).hexdigest())
            relay.wait_for_log(f"sha256-raw:{pins[0]}")
            assert b"derpkey" in meta
    assert len(set(pins)) == 1
