"""Starts a relay, logs idle clients in, and waits for the first frame that each of them gets.

    python -m tests.interop.watch_keepalive FOLDER COMMAND...

Prints one line of JSON: for each client the seconds from its login, the frame's type and its
payload's length. A process of its own, since the tests have other things to do for this minute;
a relay of its own, since other tests count connections.
"""

import json
import selectors
import sys
import time
from pathlib import Path

from tests.interop.rawderp import PATIENCE, SERVER, Key, Wire, client_info
from tests.interop.relay import Relay, running, write_key_file
from tests.support.derp import upgrade_request

CLIENTS = 8
LONGEST = 80.0
"""Seconds: the Go derper's keepalive comes after 60 and up to 5 of jitter, ours sooner."""

Came = list[tuple[float, int, int]]


def watch(relay: Relay) -> Came:
    came: Came = []
    with selectors.DefaultSelector() as selector:
        for number in range(CLIENTS):
            wire = Wire.connect((relay.host, relay.port))
            wire.send(upgrade_request("Upgrade: DERP", "Derp-Fast-Start: 1"))
            wire.take_frame()
            key = Key.named(f"idle client {number}")
            wire.send(client_info(key, b'{"version":2}', SERVER.public))
            wire.take_frame()
            selector.register(wire.sock, selectors.EVENT_READ, (wire, time.monotonic()))
        deadline = time.monotonic() + LONGEST
        while len(came) < CLIENTS and (remaining := deadline - time.monotonic()) > 0:
            for ready, _ in selector.select(remaining):
                wire, since = ready.data
                kind, payload = wire.take_frame(PATIENCE)
                came.append((time.monotonic() - since, kind, len(payload)))
                selector.unregister(ready.fileobj)
    return came


def main(folder: Path, command: list[str]) -> None:
    write_key_file(folder / "derper.key", SERVER.private)
    with running(Relay("idle", command, folder, tls=False)) as relay:
        came = watch(relay)
    sys.stdout.write(json.dumps(came))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
