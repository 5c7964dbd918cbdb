"""One -certdir for the Go derper and for ours: each goes on with what the other has left."""

import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

from tests.interop.issuing import acme_relay, issued, renewed, shake, shake_with
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.pebble import Pebble
from tests.interop.relay import Relay, environment, running

NAME = "switch.test"


def test_what_autocert_left_is_used(
    under_test: list[str], binaries: dict[str, Path], authority: Pebble, tmp_path: Path
) -> None:
    """Its certificate without asking anybody, and its account when it is time to renew."""
    relay = acme_relay(under_test, tmp_path, authority, NAME, "127.0.0.12")
    subprocess.run(
        [
            *(str(binaries["derpcheck"]), "autocert", "-name", NAME),
            *("-directory", authority.directory, "-certdir", str(relay.certdir)),
            *("-listen", f"127.0.0.12:{authority.tls_port}"),
        ],
        env=environment(SSL_CERT_FILE=str(authority.bundle)),
        timeout=60,
        check=True,
    )
    left = {file.name: file.read_bytes() for file in relay.certdir.iterdir()}
    assert left.keys() == {"acme_account+key", NAME}
    orders = authority.orders
    with ExitStack() as stack:
        with authority.held():
            stack.enter_context(running(relay))
            old = shake_with(relay)
            assert old.chain, old.alert
        assert (relay.certdir / NAME).read_bytes() == left[NAME]
        assert authority.orders == orders
        renewed(relay, authority, old.chain[0])
    assert "There are now 2 accounts" not in authority.log
    assert (relay.certdir / "acme_account+key").read_bytes() == left["acme_account+key"]


def test_what_ours_left_is_used_by_the_go_derper(
    under_test: list[str], binaries: dict[str, Path], authority: Pebble, tmp_path: Path
) -> None:
    """In a namespace from which it reaches nobody, so that all it has is the folder."""
    skip_unless_possible("the Go derper has ACME on port 443 only")
    relay = acme_relay(under_test, tmp_path, authority, NAME, "127.0.0.12")
    with running(relay):
        ours = issued(relay, authority)
    with closing(Namespace.make()) as space:
        theirs = Relay(
            *("go", [str(binaries["derper"])], tmp_path),
            hostname=NAME,
            certmode="letsencrypt",
            certdir=relay.certdir,
            listen="",
            port=443,
            http_port=80,
            prefix=space.prefix,
        )
        with running(theirs):
            served = shake(("127.0.0.1", 443), NAME, dial=space.connect)
    assert served.chain == ours.chain
