"""The health check that is in the image: what it says of a relay that is well, and of others."""

from datetime import UTC, datetime, timedelta

from tests.container.contents import SELF_SIGNED, certificate
from tests.container.podman import Dock
from tests.interop.relay import TestCA

NAME = "derp.example.com"


def test_a_relay_that_hangs(dock: Dock) -> None:
    """It is well, hangs, and comes round."""
    relay = dock.start(**SELF_SIGNED)
    relay.serves()
    assert relay.healthy(), relay.health()
    assert "STUN at" in relay.health()
    relay.signal("STOP")
    assert not relay.healthy()
    # The check itself has ended, and was not cut off.
    assert "derper: unhealthy: " in relay.health()
    relay.signal("CONT")
    assert relay.healthy(), relay.health()


def test_a_certificate_that_has_expired(dock: Dock, test_ca: TestCA) -> None:
    """Clients refuse it, so that the relay is of no use to them."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certs = dock.volume(certificate(test_ca, NAME, until=yesterday))
    relay = dock.start(f"--volume={certs}:/app/certs", DERP_DOMAIN=NAME, DERP_CERT_MODE="manual")
    relay.serves(NAME)
    assert not relay.healthy()
    assert "certificate expired on" in relay.health()


def test_stun_is_missing(dock: Dock) -> None:
    """The variables say that there is STUN; a script has told the relay otherwise."""
    script = "/app/derper -stun=false; true"
    relay = dock.start(command=["sh", "-c", script], **SELF_SIGNED)
    relay.serves()
    assert not relay.healthy()
    assert ":3478" in relay.health()


def test_flags_in_place_of_variables(dock: Dock) -> None:
    """The check follows them too, wherever they stand."""
    relay = dock.start(command=["-stun=false", "--a=:8443"], **SELF_SIGNED)
    relay.wait_for_log("what=HTTPS")
    assert relay.healthy(), relay.health()
    assert ":8443" in relay.health()
    assert "STUN" not in relay.health()


def test_without_stun(dock: Dock) -> None:
    """As it should be."""
    relay = dock.start(**SELF_SIGNED, DERP_STUN="false")
    relay.serves()
    assert relay.healthy(), relay.health()


def test_every_port_elsewhere(dock: Dock) -> None:
    """The check follows the variables."""
    relay = dock.start(
        **SELF_SIGNED, DERP_ADDR=":8443", DERP_HTTP_PORT="-1", DERP_STUN_PORT="13478"
    )
    relay.wait_for_log("what=STUN")
    assert relay.healthy(), relay.health()
    assert ":8443" in relay.health()
    assert ":13478" in relay.health()


def test_behind_a_proxy(dock: Dock) -> None:
    """Plain HTTP, because neither port nor mode want TLS."""
    relay = dock.start(DERP_DOMAIN=NAME, DERP_ADDR=":8080")
    relay.wait_for_log("what=STUN")
    assert relay.healthy(), relay.health()
