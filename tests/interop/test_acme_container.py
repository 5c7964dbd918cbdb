"""A relay with nothing but the environment of derper-docker's image: it must serve by itself."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.issuing import INTERNAL_ERROR, shake
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.pebble import Pebble, pebble
from tests.interop.relay import Relay, environment, running
from tests.support import derperdocker
from tests.support.waiting import until

HOSTNAME = "derp.example.org"


class Container(Relay):
    """A relay that is told everything by its environment."""

    def arguments(self) -> list[str]:
        return []


@pytest.fixture
def space() -> Iterator[Namespace]:
    skip_unless_possible("no network where ports 80 and 443 are free")
    with closing(Namespace.make()) as made:
        yield made


@pytest.fixture
def authority(
    binaries: dict[str, Path], is_go: bool, tmp_path: Path, space: Namespace
) -> Iterator[Pebble]:
    """Where the container is, and validating on the usual ports."""
    if is_go:
        pytest.skip("the Go derper asks no other authority than its own")
    with pebble(binaries, tmp_path, space=space, http_port=80, tls_port=443) as started:
        yield started


def test_the_defaults_serve_the_first_client(
    under_test: list[str],
    binaries: dict[str, Path],
    authority: Pebble,
    space: Namespace,
    tmp_path: Path,
) -> None:
    mine = {
        "DERP_DOMAIN": HOSTNAME,
        "DERP_CERT_DIR": str(tmp_path / "certs"),
        "DERP_ACME_DIRECTORY": authority.directory,
        "DERP_ACME_CA_BUNDLE": str(authority.bundle),
    }
    own = ["unshare", "--mount", "--", "sh", "-ec"]
    own += ['mount -t tmpfs tmpfs /var/lib; exec "$@"', "sh"]
    relay = Container(
        *("container", under_test, tmp_path),
        env=environment(**(derperdocker.ENVIRONMENT | mine)),
        prefix=[*space.prefix, *own],
        port=443,
    )
    address = ("127.0.0.1", 443)
    with running(relay):
        first = shake(address, HOSTNAME, dial=space.connect)
        assert first.chain or first.alert == INTERNAL_ERROR
        node = {"Name": "900a", "HostName": HOSTNAME, "IPv4": "127.0.0.1", "IPv6": "none"}
        root = tmp_path / "root.pem"
        root.write_text(authority.root())
        until("there is a certificate", lambda: shake(address, HOSTNAME, dial=space.connect).chain)
        talked = subprocess.run(
            [*space.prefix, binaries["derpcheck"], "talk", "-node", json.dumps(node)],
            env=environment(SSL_CERT_FILE=str(root)),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert json.loads(talked.stdout)["ok"], talked
        stun = space.run(str(binaries["derpcheck"]), "stun", "127.0.0.1:3478")
        assert not json.loads(stun)["error"], stun
