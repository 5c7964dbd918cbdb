"""A Go derper's container is replaced by ours with the same volumes, and the other way round.

Both run in a network of their own, with a real ACME server.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.clients import staying
from tests.container.podman import Dock
from tests.interop.netns import Namespace
from tests.interop.pebble import Pebble, pebble

NAME = "derp.example.com"
USER = 65532


@pytest.fixture
def authority(binaries: dict[str, Path], tmp_path: Path, space: Namespace) -> Iterator[Pebble]:
    """It validates on the usual ports, and every name leads to 127.0.0.1."""
    with pebble(binaries, tmp_path, space=space, http_port=80, tls_port=443) as started:
        yield started


def test_it_goes_on_with_what_the_go_derper_left(
    own_dock: Dock, authority: Pebble, derper_docker: str, tmp_path: Path
) -> None:
    """Certificate and key, all of them root's; its clients come back to ours, and to it again."""
    certs, state = own_dock.volume(), own_dock.volume()
    volumes = [f"--volume={certs}:/app/certs", f"--volume={state}:/var/lib/derper"]
    derpcheck = own_dock.binaries["derpcheck"]
    issued = own_dock.once(
        *("/derpcheck", "autocert", "-name", NAME, "-directory", authority.directory),
        *("-certdir", "/app/certs", "-listen", "127.0.0.1:443"),
        image=derper_docker,
        options=[
            *("--network=host", *volumes, f"--volume={derpcheck}:/derpcheck:ro"),
            f"--volume={authority.bundle}:/pebble.pem:ro",
        ],
        SSL_CERT_FILE="/pebble.pem",
    )
    assert issued.returncode == 0, issued.stderr
    root = tmp_path / "root.pem"
    root.write_text(authority.root())
    authority.stop()

    theirs = own_dock.start(*volumes, image=derper_docker, DERP_DOMAIN=NAME)
    chain, identity = theirs.serves(NAME).chain, theirs.identity(NAME)
    assert theirs.process()["Uid"].split()[0] == "0"
    left = own_dock.contents(certs)
    assert (left[NAME].owner, left[NAME].mode) == (0, 0o600)
    key = own_dock.contents(state)["derper.key"]
    assert (key.owner, key.mode) == (0, 0o600)

    with staying(own_dock, theirs, {"HostName": NAME}, trust=root) as clients:
        assert clients.meet() == {identity}
        # Killed, as it would be after ten seconds: the shell before it passes no signal on.
        theirs.remove()
        ours = own_dock.start(*volumes, DERP_DOMAIN=NAME)
        assert clients.meet() == {identity}
        assert ours.serves(NAME).chain == chain
        assert ours.process()["Uid"].split()[0] == str(USER)
        assert own_dock.contents(certs)[NAME].content == left[NAME].content
        assert own_dock.contents(state)["derper.key"].content == key.content
        assert ours.stop() == 0
        ours.remove()
        back = own_dock.start(*volumes, image=derper_docker, DERP_DOMAIN=NAME)
        assert clients.meet() == {identity}
    assert back.serves(NAME).chain == chain


def test_a_certificate_is_issued_and_kept(
    own_dock: Dock, authority: Pebble, tmp_path: Path
) -> None:
    """In the host's network, where STUN sees the clients' own addresses."""
    certs = f"--volume={own_dock.volume()}:/app/certs"
    given = {
        "DERP_DOMAIN": NAME,
        "DERP_ACME_DIRECTORY": authority.directory,
        "DERP_ACME_CA_BUNDLE": "/pebble.pem",
    }
    options = ["--network=host", certs, f"--volume={authority.bundle}:/pebble.pem:ro"]
    first = own_dock.start(*options, "--read-only", **given)
    chain, identity = first.serves(NAME).chain, first.identity(NAME)
    told = own_dock.stun(first)
    assert told["mapped"] == told["local"]
    assert first.stop() == 0
    first.remove()

    root = tmp_path / "root.pem"
    root.write_text(authority.root())
    authority.stop()
    second = own_dock.start(*options, "--read-only", **given)
    assert second.serves(NAME).chain == chain
    assert second.identity(NAME) == identity
    own_dock.talk(second, {"HostName": NAME}, trust=root)
