"""A container is stopped, and another takes its place while clients are connected.

To them the relay is a node key, and its certificate: where both stay, they come back by themselves
and nobody has to change a DERP map.
"""

import pytest

from tests.container.clients import staying
from tests.container.contents import SELF_SIGNED, certificate, key_file
from tests.container.podman import Container, Dock, File, node_of
from tests.interop.rawderp import Key
from tests.interop.relay import TestCA

KEY = Key.named("a relay that was here before")
NAME = "derp.example.com"


def replace(dock: Dock, old: Container, *options: str) -> Container:
    """Stop and remove a container, and start another one where it was, with the same options."""
    old.stop()
    old.remove()
    return dock.start(*options, at=old.ports, **SELF_SIGNED)


def test_clients_come_back(dock: Dock) -> None:
    """The certificate directory alone is kept, as derper-docker's users keep it."""
    certs = f"--volume={dock.volume()}:/app/certs"
    first = dock.start(certs, **SELF_SIGNED)
    identity = first.identity()
    with staying(dock, first, node_of(first)) as clients:
        assert clients.meet() == {identity}
        assert first.stop() == 0, "it was killed, or did not end in order"
        for client in ("alice", "bob"):
            assert clients.next(client, "restarting", "lost")["saw"] == "restarting"
            clients.next(client, "lost")
        first.remove()
        second = dock.start(certs, at=first.ports, **SELF_SIGNED)
        assert clients.meet() == {identity}
    assert second.identity() == identity


def test_clients_come_back_to_a_key_mounted_apart(dock: Dock) -> None:
    """At /var/lib/derper, where the Go derper has it; then it lies nowhere else."""
    certs, state = dock.volume(), dock.volume()
    volumes = [f"--volume={certs}:/app/certs", f"--volume={state}:/var/lib/derper"]
    first = dock.start(*volumes, **SELF_SIGNED)
    identity = first.identity()
    with staying(dock, first, node_of(first)) as clients:
        assert clients.meet() == {identity}
        second = replace(dock, first, *volumes)
        assert clients.meet() == {identity}
    assert second.stop() == 0
    assert "derper.key" in dock.contents(state)
    assert "derper+key" not in dock.contents(certs)


def test_a_key_that_is_brought_along(dock: Dock) -> None:
    """Into the certificate directory, or to /var/lib/derper, which comes first."""
    kept = File(key_file(KEY))
    other = File(key_file(Key.named("another")))
    certs = dock.volume({"derper+key": kept})
    assert dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED).identity() == KEY.public.hex()
    options = [
        f"--volume={dock.volume({'derper+key': other})}:/app/certs",
        f"--volume={dock.volume({'derper.key': kept})}:/var/lib/derper",
    ]
    assert dock.start(*options, **SELF_SIGNED).identity() == KEY.public.hex()


def test_a_read_only_volume_with_certificate_and_key(dock: Dock, test_ca: TestCA) -> None:
    """As Kubernetes mounts a secret."""
    certs = dock.volume({"derper+key": File(key_file(KEY)), **certificate(test_ca, NAME)})
    relay = dock.start(f"--volume={certs}:/app/certs:ro", DERP_DOMAIN=NAME, DERP_CERT_MODE="manual")
    assert relay.identity(NAME) == KEY.public.hex()
    assert "no volume" not in relay.log


@pytest.mark.parametrize("volumes", [(), ("/app/certs",)], ids=["none", "nameless"])
def test_without_a_volume_that_is_kept(dock: Dock, volumes: tuple[str, ...]) -> None:
    """It is another relay; restarting a container makes no other one."""
    options = [f"--volume={volume}" for volume in volumes]
    first = dock.start(*options, **SELF_SIGNED)
    identity = first.identity()
    first.podman.do("restart", first.name)
    assert first.identity() == identity
    assert replace(dock, first, *options).identity() != identity
