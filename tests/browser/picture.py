"""Makes the picture of the live page for the README, in a network of its own:

unshare -n sh -c 'ip link set lo up; ip addr add 203.0.113.1/24 dev lo
    python -m tests.browser.picture docs/live-page.png'
"""

import contextlib
import math
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.browser import chromium
from tests.browser.place import node_key, text
from tests.interop.logins import dial, hello, log_in, verdict_of
from tests.interop.rawderp import SERVER, Key, Wire
from tests.interop.relay import Relay, running, write_key_file
from tests.support.derp import NOTE_PREFERRED, SEND_PACKET, frame

CLIENTS = ("ada-laptop", "nas", "build-box", "backup", "grace-phone", "kitchen-pi")
FLOWS = (
    ("ada-laptop", "nas", 20, 1200),
    ("nas", "ada-laptop", 3, 300),
    ("build-box", "backup", 9, 1300),
    ("grace-phone", "kitchen-pi", 2, 200),
)
"""Who sends to whom: packets in a twentieth of a second, at most, and their bytes."""
MINUTE = 75.0
"""Seconds of traffic, for the chart of a minute."""


def discard(wire: Wire) -> None:
    """Read all that comes, until the relay ends."""
    wire.sock.settimeout(None)
    with contextlib.suppress(OSError):
        while wire.sock.recv(1 << 16):
            pass


def send(wire: Wire, to: bytes, packets: int, size: int, phase: float) -> None:
    """Send now more, now less, until the relay ends."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while True:
            wave = 0.55 + 0.35 * math.sin((time.monotonic() - began) / 7 + phase)
            for _ in range(round(packets * wave * random.uniform(0.7, 1.3))):
                wire.sock.sendall(frame(SEND_PACKET, to + os.urandom(size)))
            time.sleep(0.05)


def main(picture: Path) -> None:
    random.seed(1)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        write_key_file(folder / "derper.key", SERVER.private)
        policy = folder / "policy.toml"
        entries = [f'[clients."{node_key(name)}"]\nlabel = "{name}"\n' for name in CLIENTS]
        policy.write_text("".join([*entries, f'[clients."{node_key("lost")}"]\ndeny = true\n']))
        flags = ["-policy", str(policy), "-hostname", "derp.example.com"]
        command = [sys.executable, "-m", "derp"]
        relay = Relay("relay", command, folder, tls=False, stun=True, flags=flags)
        with running(relay), chromium.running(folder) as browser:
            wires = {}
            for number, name in enumerate(CLIENTS):
                wire = log_in(relay, Key.named(name), None, f"203.0.113.{7 + 31 * number}")
                if name not in {"nas", "backup"}:
                    wire.send(frame(NOTE_PREFERRED, b"\1"))
                threading.Thread(target=discard, args=[wire], daemon=True).start()
                wires[name] = wire
            for phase, (source, to, *amount) in enumerate(FLOWS):
                arguments = [wires[source], Key.named(to).public, *amount, phase]
                threading.Thread(target=send, args=arguments, daemon=True).start()
            lost = dial(relay, None, "203.0.113.99")
            lost.send(hello(Key.named("lost")))
            verdict_of(lost)
            page = browser.open()
            page.show(width=1040, theme="light")
            page.goto(f"http://127.0.0.1:{relay.port}/debug/")
            page.until(f"{text('#state')} === 'live'")
            time.sleep(MINUTE)
            page.screenshot(picture, whole=False)
            print(picture, picture.stat().st_size, "bytes", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
