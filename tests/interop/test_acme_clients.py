"""Tailscale's own clients at a relay whose certificates come from an ACME server.

Those of the operator, and self-signed ones, are met by them in test_derphttp and test_tailscaled.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.interop.issuing import acme_relay, issued
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.pebble import Pebble, pebble
from tests.interop.relay import Relay, environment, running
from tests.interop.tailnet import REGION, RELAY_4, RELAY_6, Served, eventually, tailnet_through


def talk(derpcheck: Path, node: Mapping[str, object], root: Path) -> None:
    """Two of Go's DERP clients meet at this node of a DERP map."""
    done = subprocess.run(
        [derpcheck, "talk", "-node", json.dumps({"Name": "900a", **node})],
        env=environment(SSL_CERT_FILE=str(root)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"], result
    assert result["detail"] == "3 certificates"  # the host's own, the issuer's, the metacert


@pytest.fixture
def root(authority: Pebble, tmp_path: Path) -> Path:
    """Where Go finds what to trust."""
    path = tmp_path / "root.pem"
    path.write_text(authority.root())
    return path


def test_derphttp(
    under_test: list[str],
    binaries: dict[str, Path],
    authority: Pebble,
    root: Path,
    tmp_path: Path,
) -> None:
    """By name, and by address."""
    name, address = "go.test", "127.0.0.62"
    relays = [
        acme_relay(under_test, tmp_path / "1", authority, name, "127.0.0.61"),
        acme_relay(under_test, tmp_path / "2", authority, address, address, "-acme-ip-certs"),
    ]
    with running(relays[0]), running(relays[1]):
        for relay in relays:
            issued(relay, authority)
            node = {"HostName": relay.hostname, "IPv4": relay.host, "DERPPort": relay.port}
            talk(binaries["derpcheck"], {"IPv6": "none", **node}, root)


@pytest.fixture
def spaces() -> None:
    skip_unless_possible("no real tailscaled here")


@contextmanager
def by_acme(
    command: list[str], binaries: dict[str, Path], folder: Path, middle: Namespace, hostname: str
) -> Iterator[Served]:
    """A relay in the middle, and an ACME server beside it."""
    with pebble(binaries, folder, space=middle) as authority:
        relay = acme_relay(
            *(command, folder, authority, hostname, RELAY_4),
            *(["-acme-ip-certs", "-acme-ip-addresses", RELAY_6] if hostname == RELAY_4 else []),
            listen="",
            stun=True,
            prefix=middle.prefix,
        )
        root = folder / "root.pem"
        root.write_text(authority.root())
        with running(relay):
            yield Served(relay, root, {"HostName": hostname})


@contextmanager
def self_signed(command: list[str], folder: Path, middle: Namespace) -> Iterator[Served]:
    """A relay whose DERP node, pin and all, is the one that it prints."""
    relay = Relay(
        *("relay", command, folder),
        hostname=RELAY_4,
        listen="",
        stun=True,
        prefix=middle.prefix,
    )
    with running(relay):
        printed = json.loads(relay.wait_for_log(r"\{[^{}]*sha256-raw:[^{}]*\}")[0])
        nobody = folder / "nobody.pem"
        nobody.touch()
        yield Served(relay, nobody, {key: printed[key] for key in ("HostName", "CertName")})


@pytest.mark.parametrize("kind", ["dns", "address", "pinned"])
@pytest.mark.usefixtures("spaces")
def test_tailscaled(
    under_test: list[str], binaries: dict[str, Path], is_go: bool, tmp_path: Path, kind: str
) -> None:
    if is_go and kind != "pinned":
        pytest.skip("the Go derper asks no other authority than its own")

    def serve(middle: Namespace) -> AbstractContextManager[Served]:
        if kind == "pinned":
            return self_signed(under_test, tmp_path, middle)
        hostname = "derp.test" if kind == "dns" else RELAY_4
        return by_acme(under_test, binaries, tmp_path, middle, hostname)

    with tailnet_through(serve, binaries, tmp_path, blob_size=1000) as net:
        eventually("a ping comes back", 60, lambda: net.alice.ping(net.bob, 2) is not None)
        line = net.alice.ping(net.bob)
        assert line
        assert f"via DERP({REGION})" in line
