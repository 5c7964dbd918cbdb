"""Clients of a container's relay: Go's, that stay, and one that is let in or not."""

import contextlib
import json
import queue
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.container.podman import HTTPS, Container, Dock, placed
from tests.interop.rawderp import EndedError, Key, Wire, client_info
from tests.interop.relay import die_with_parent, environment
from tests.support.derp import SERVER_INFO, SERVER_KEY, UPGRADE, upgrade_request

PATIENCE = 30


@attrs.define
class Clients:
    """Two of Go's clients, alice and bob, that send each other packets and come back by themselves.

    What they saw is taken in the order in which each of them saw it.
    """

    process: "subprocess.Popen[str]"
    seen: "dict[str, queue.Queue[dict[str, Any]]]" = attrs.field(
        factory=lambda: {"alice": queue.Queue(), "bob": queue.Queue()}
    )

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            sighting = json.loads(line)
            self.seen[sighting["client"]].put(sighting)

    def next(self, client: str, *wanted: str) -> dict[str, Any]:
        """The next sighting of this kind; others are passed over."""
        passed = []
        while True:
            try:
                sighting = self.seen[client].get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"{client} saw no {wanted}, but {passed}") from None
            if sighting["saw"] in wanted:
                return sighting
            passed.append(sighting)

    def meet(self) -> set[str]:
        """Wait until both have logged in and got a packet; return the relay's keys in hex."""
        servers = set()
        for client in self.seen:
            login = self.next(client, "login")
            servers.add(login["server"].removeprefix("nodekey:"))
        for client in self.seen:
            self.next(client, "packet")
        return servers


@contextlib.contextmanager
def staying(
    dock: Dock, container: Container, node: Mapping[str, Any], trust: Path | None = None
) -> Iterator[Clients]:
    """Two clients for as long as the block runs."""
    variables = {} if trust is None else {"SSL_CERT_FILE": str(trust)}
    prefix = dock.space.prefix if dock.space else []
    command = [*prefix, str(dock.binaries["derpcheck"]), "stay", "-node"]
    process = subprocess.Popen(
        [*command, json.dumps(placed(container, node))],
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here that could hold a lock
    )
    clients = Clients(process)
    reader = threading.Thread(target=clients.read)
    reader.start()
    try:
        yield clients
    finally:
        process.kill()
        reader.join()
        process.communicate()


def admitted(container: Container, key: Key, name: str | None = None) -> bool:
    """Whether the relay, which serves TLS by this name, lets this key in."""
    container.serves(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    wire = Wire(context.wrap_socket(container.dial(HTTPS), server_hostname=name))
    with contextlib.closing(wire):
        wire.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1"))
        kind, payload = wire.take_frame()
        assert kind == SERVER_KEY
        wire.send(client_info(key, {"version": 2}, payload[-32:]))
        try:
            kind, payload = wire.take_frame()
        except EndedError:
            return False
        assert kind == SERVER_INFO
        return True
