"""The stage: the relay, and all that is around it.

The full stage has workers, a certificate by ACME, a list, a policy, a tailnet's API, an admission
server, accounts, and a mesh peer. The plain one has what the Go derper knows, too: one process, a
certificate from files, an admission server and a mesh peer.
"""

import random
import signal
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import nacl.public

from certs.acme.store import certificate_file
from tests.chaos.piped import PipedRelay
from tests.interop.deviceapi import DeviceAPI
from tests.interop.pebble import Pebble
from tests.interop.relay import REPO, Relay, TestCA, die_with_parent
from tests.interop.steppedclock import SteppedClock
from tests.support.deviceapis import device

HOSTNAME, HOST = "chaos.test", "127.0.0.91"

LIST, DEVICE, URL, PEER, STRANGER, DENIED = "list", "tailnet", "url", "peer", "stranger", "denied"
GROUPS = [LIST] * 6 + [DEVICE] * 5 + [URL] * 5 + [PEER] * 2 + [STRANGER, DENIED]
PLAIN_GROUPS = [URL] * 16 + [PEER] * 2 + [STRANGER] * 2


@attrs.frozen
class Member:
    """A client: its key, and what admits it, or not."""

    private: bytes
    group: str

    @property
    def key(self) -> bytes:
        return bytes(nacl.public.PrivateKey(self.private).public_key)

    @property
    def node_key(self) -> str:
        return f"nodekey:{self.key.hex()}"


def cast(count: int, chance: random.Random, groups: Sequence[str]) -> list[Member]:
    """Make the clients of a run; the same for the same seed."""
    return [Member(chance.randbytes(32), groups[n % len(groups)]) for n in range(count)]


@attrs.define
class Neighbour:
    """A program that the relay asks; its port stays the same when it is started again."""

    command: Sequence[str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- the one thread reads a pipe
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)


@attrs.define
class Stage:
    """What faults are done to. Times are of the monotonic clock."""

    folder: Path
    ca: TestCA
    chance: random.Random
    members: Sequence[Member]
    relay: PipedRelay
    peer: Relay
    admission: Neighbour
    workers: int = 0
    """How many the relay has; 0 if it is one process."""
    state: Path | None = None
    """The file system of its own on which the relay keeps its files, if there is one."""
    clock: SteppedClock | None = None
    authority: Pebble | None = None
    api: DeviceAPI | None = None
    api_process: Neighbour | None = None
    away: set[int] = attrs.field(factory=set)
    """Those that don't belong now, of the clients that do otherwise."""
    kills: list[tuple[float, float]] = attrs.field(factory=list)
    """From when to when what was counted may be lost, since a process was ended."""
    disk_since: float | None = None
    """Since when the disk can't be written to."""
    served: bytes = b""
    """The leaf (DER) that the relay has to serve; empty for one of the ACME server's."""

    @property
    def belonging(self) -> frozenset[int]:
        """The numbers of the clients that belong in."""
        outside = {STRANGER, DENIED}
        return frozenset(
            number
            for number, member in enumerate(self.members)
            if member.group not in outside and number not in self.away
        )

    def home(self, number: int) -> int:
        """Return 1 for a client of the mesh peer, else 0."""
        return int(self.members[number].group == PEER)

    def of(self, group: str) -> list[int]:
        return [number for number, member in enumerate(self.members) if member.group == group]

    @property
    def allow_list(self) -> Path:
        return self.folder / "allowed"

    def write_list(self, text: str | None = None) -> None:
        """Replace the list: by who belongs there, or by a text."""
        if text is None:
            listed = [n for n in self.of(LIST) if n not in self.away]
            text = "".join(f"{self.members[n].node_key}\n" for n in listed)
        new = self.allow_list.with_suffix(".new")
        new.write_text(text)
        new.replace(self.allow_list)

    def tell_api(self) -> None:
        """Have the API list the devices."""
        assert self.api
        self.api.say(devices=[device(self.members[n].key) for n in self.of(DEVICE)])

    def trust(self) -> None:
        """Have the peer, when it is started next, trust what the relay may serve."""
        if self.authority is not None:
            with (self.folder / "trusted.pem").open("a") as bundle:
                bundle.write(self.authority.root())

    def put_certificate(self, lasts: float | None = None) -> bytes:
        """Write another certificate where the relay's is; return the leaf (DER).

        It `lasts` so many hours, or for years. Raises OSError.
        """
        end = None if lasts is None else datetime.now(UTC) + timedelta(hours=lasts)
        issued = self.ca.ca.issue_cert(HOSTNAME, not_after=end)
        chain = [blob.bytes() for blob in issued.cert_chain_pems]
        file = certificate_file(self.relay.certdir, HOSTNAME)
        new = file.with_suffix(".new")
        new.write_bytes(issued.private_key_pem.bytes() + b"".join(chain))
        new.chmod(0o600)
        new.replace(file)
        return ssl.PEM_cert_to_DER_cert(chain[0].decode())

    def running(self) -> bool:
        """Whether the relay runs."""
        return self.relay.process is not None and self.relay.process.poll() is None
