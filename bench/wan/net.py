"""The network of a case: two tailscaled and the relay, each on a host of its own.

    alice ──emulated link── relay and control server ──emulated link── bob

It is as that of the interop suite (tests/interop/tailnet.py): network namespaces, no packet
forwarded in the middle, and tailscaled told not to try UDP, so that the relay is the only way.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.wan.cable import DEVICE, Cable, Emulator, End, emulated
from bench.wan.cases import Case
from tests.interop.netns import Namespace
from tests.interop.relay import Relay, TestCA, environment
from tests.interop.tailnet import RELAY_4, SOCKS, Node, Tailnet, eventually, tailscales_control

HOSTNAME = "derp.test"
TUN = "tailscale0"
PATIENCE = 60


class TunNode(Node):
    """A tailscaled with a TUN device, as on most machines."""

    def command(self) -> list[str]:
        return [
            *self.space.prefix,
            str(self.binaries["tailscaled"]),
            f"--tun={TUN}",
            f"--statedir={self.folder}",
            f"--socket={self.socket}",
        ]

    def up(self, *flags: str) -> None:
        super().up("--netfilter-mode=off", *flags)


@dataclass(frozen=True)
class Net:
    """All that runs in a case."""

    tailnet: Tailnet
    emulator: Emulator
    case: Case

    @property
    def proxy(self) -> list[str]:
        """What traffic.py is told at the sender's."""
        return ["--socks", SOCKS] if self.case.mode == "userspace" else []

    @property
    def listen(self) -> str:
        """Where a program has to listen at the receiver's."""
        return "127.0.0.1" if self.case.mode == "userspace" else self.tailnet.bob.address()


@contextlib.contextmanager
def network(
    case: Case,
    command: Sequence[str],
    binaries: dict[str, Path],
    ca: TestCA,
    folder: Path,
    *,
    seed: int,
    buffer: float | None = None,
) -> Iterator[Net]:
    """Make it, with this command as the relay, until both nodes can talk.

    Raises AssertionError for what does not come up, and BenchError.
    """
    with contextlib.ExitStack() as stack:
        middle, left, right = (Namespace.make() for _ in range(3))
        for space in (middle, left, right):
            stack.callback(space.close)
        middle.address("lo", f"{RELAY_4}/32")
        cables = [
            Cable(
                (
                    End(
                        *(space, DEVICE.format(0), f"10.88.{number}.2/24", f"10.88.{number}.0/24"),
                        default=f"10.88.{number}.1",
                    ),
                    End(
                        *(middle, DEVICE.format(number)),
                        *(f"10.88.{number}.1/24", f"10.88.{number}.0/24"),
                    ),
                ),
                case.wire(rate, buffer),
                case.congestion,
            )
            for number, space, rate in ((1, left, case.up), (2, right, case.down))
        ]
        emulator = stack.enter_context(emulated(cables, seed))

        ca.issue(folder, HOSTNAME)
        # Each relay gets the same flags.
        relay = Relay(
            *("relay", command, folder),
            listen="",
            hostname=HOSTNAME,
            stun=True,
            prefix=middle.prefix,
            # Many relays are started: compile ours once.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        )
        stack.callback(relay.kill)
        relay.start()
        told = {
            "Name": "900a",
            "HostName": HOSTNAME,
            "IPv4": RELAY_4,
            "DERPPort": relay.port,
            "STUNPort": relay.stun_port,
        }
        control = tailscales_control(binaries["derpcheck"], folder)
        flags = stack.enter_context(control(middle, told))
        alice, bob = (
            stack.enter_context(_node(case.mode, name, space, folder, binaries, ca))
            for name, space in (("alice", left), ("bob", right))
        )
        for one in (alice, bob):
            one.up(*flags)
        for one, other in ((alice, bob), (bob, alice)):
            reaches = f"{one.name} reaches {other.name}"
            eventually(reaches, PATIENCE, lambda o=one, t=other: o.ping(t) is not None)
        yield Net(Tailnet(relay, middle, alice, bob, binaries, ""), emulator, case)


@contextlib.contextmanager
def _node(
    mode: str,
    name: str,
    space: Namespace,
    folder: Path,
    binaries: dict[str, Path],
    ca: TestCA,
) -> Iterator[Node]:
    home = folder / name
    home.mkdir()
    env = environment(
        HOME=str(home),
        SSL_CERT_FILE=str(ca.pem),
        TS_DEBUG_NEVER_DIRECT_UDP="1",
        TS_NO_LOGS_NO_SUPPORT="1",
    )
    node = (TunNode if mode == "tun" else Node)(name, space, home, binaries, env)
    try:
        node.start()
        yield node
    finally:
        node.kill()
