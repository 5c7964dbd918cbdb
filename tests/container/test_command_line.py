"""The command line that derper-docker's users have, with another image in it and nothing else.

In a network of its own, because the ports are those that it names.
"""

from pathlib import Path

from tests.container.podman import Dock, node_of
from tests.interop.issuing import INTERNAL_ERROR
from tests.interop.relay import TestCA

NAME = "derp.example.com"


def test_with_nothing_but_a_name(own_dock: Dock) -> None:
    """Let's Encrypt can't be reached, which is no reason to end: it says what is awaited."""
    relay = own_dock.start(DERP_DOMAIN=NAME)
    assert relay.answers(NAME).alert == INTERNAL_ERROR
    own_dock.stun(relay)
    assert relay.get("/generate_204")[0] == 204
    status, headers = relay.get("/")
    assert (status, headers["location"]) == (302, "https://relay.test/")
    relay.wait_for_log(f'msg="no certificate.*{NAME}')
    assert not relay.healthy()
    assert f"the certificate for {NAME} from letsencrypt is awaited" in relay.health()
    assert relay.stop() == 0


def test_with_a_certificate_that_is_mounted(
    own_dock: Dock, test_ca: TestCA, tmp_path: Path
) -> None:
    """As certbot's or acme.sh's hooks leave it: root's, and closed to everybody else."""
    folder = tmp_path / "certs"
    folder.mkdir(mode=0o700)
    test_ca.issue(folder, NAME)
    relay = own_dock.start(
        f"--volume={folder}:/app/certs", DERP_DOMAIN=NAME, DERP_CERT_MODE="manual"
    )
    relay.serves(NAME)
    own_dock.talk(relay, {"HostName": NAME}, trust=test_ca.pem)
    own_dock.talk(relay, node_of(relay), trust=test_ca.pem)
    own_dock.stun(relay)
    assert relay.healthy(), relay.health()
    assert relay.stop() == 0


def test_with_an_address(own_dock: Dock) -> None:
    """It makes its own certificate; clients know it by the pin that `derper derpmap` prints."""
    relay = own_dock.start(DERP_DOMAIN="127.0.0.1", DERP_CERT_MODE="manual")
    relay.serves()
    node = node_of(relay)
    assert node["CertName"].startswith("sha256-raw:")
    own_dock.talk(relay, node)
    own_dock.stun(relay)
    assert relay.healthy(), relay.health()
    assert relay.stop() == 0
