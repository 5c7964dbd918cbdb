"""A relay in the middle of a tailnet that lets in only who belongs."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.interop.logins import hello, verdict_of
from tests.interop.netns import Namespace
from tests.interop.rawderp import SERVER, Key, Wire
from tests.interop.relay import Relay, TestCA, running, write_key_file
from tests.interop.tailnet import RELAY_4, Serve, Served, Tailnet

HOSTNAME = "derp.test"


def gated(command: Sequence[str], ca: TestCA, folder: Path, *flags: str) -> Serve:
    """Runs a relay with these flags, that say who belongs."""

    @contextmanager
    def serve(middle: Namespace) -> Iterator[Served]:
        ca.issue(folder, HOSTNAME)
        write_key_file(folder / "derper.key", SERVER.private)
        relay = Relay(
            *("relay", command, folder),
            listen="",
            hostname=HOSTNAME,
            stun=True,
            prefix=middle.prefix,
            flags=flags,
        )
        with running(relay):
            yield Served(relay, ca.pem, {"HostName": HOSTNAME})

    return serve


def verdict_there(net: Tailnet, ca: TestCA, key: Key) -> str:
    """What becomes of a client with this key that logs in to the relay of this tailnet."""
    sock = net.middle.connect((RELAY_4, net.relay.port))
    tls = ssl.create_default_context(cafile=ca.pem)
    wire = Wire(tls.wrap_socket(sock, server_hostname=HOSTNAME))
    try:
        wire.send(hello(key))
        return verdict_of(wire)
    finally:
        wire.close()
