"""A tailnet of two real tailscaled in network namespaces of their own, with our relay between.

        alice ──veth── relay and control server ──veth── bob

Packets are not forwarded in the middle, so the two can reach each other only through the relay;
and a tailscaled that can be told so tries nothing else. tailscaled uses no TUN device: what bob's
gets for his address goes to his loopback, and alice's is reached as a SOCKS5 proxy.
"""

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import attrs
from nacl.bindings import crypto_scalarmult_base

from tests.interop.netns import TIMEOUT, Namespace, link
from tests.interop.rawderp import Key
from tests.interop.relay import Relay, TestCA, die_with_parent, environment

RELAY_4, RELAY_6 = "10.99.0.1", "fd99::1"
CONTROL_PORT = 8080
SOCKS = "127.0.0.1:1055"
BLOB_PORT = 9000
BLOB_SIZE = 50_000_000
REGION = "ours"


@attrs.define
class Node:
    """One tailscaled, and the tools to talk to it."""

    name: str
    space: Namespace
    folder: Path
    binaries: dict[str, Path]
    env: dict[str, str]
    control_port: int = CONTROL_PORT
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def log(self) -> str:
        return (self.folder / "tailscaled.log").read_text(errors="replace")

    def command(self) -> list[str]:
        return [
            *self.space.prefix,
            str(self.binaries["tailscaled"]),
            "--tun=userspace-networking",
            f"--statedir={self.folder}",
            f"--socket={self.socket}",
            f"--socks5-server={SOCKS}",
        ]

    def start(self) -> None:
        """Start tailscaled and wait until it listens; once logged in it stays so.

        Raises AssertionError, with the line that says why, where it ends instead.
        """
        assert self.process is None
        with (self.folder / "tailscaled.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
            )
        eventually(f"{self.name} listens", 30, self.listens)

    def listens(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"{self.name} ended: {last_words(self.log)}"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
            return True
        return False

    def stop(self) -> None:
        """As a service manager would; it takes its socket away."""
        if self.process:
            self.process.terminate()
            self.process.wait(TIMEOUT)
            self.process = None

    def kill(self) -> None:
        """Its socket stays, and nobody listens there."""
        if self.process:
            self.process.kill()
            self.process.wait(TIMEOUT)
            self.process = None

    def tailscale(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The command `tailscale`, both its outputs together."""
        return subprocess.run(
            [
                *self.space.prefix,
                *(str(self.binaries["tailscale"]), f"--socket={self.socket}"),
                *arguments,
            ],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *flags: str) -> None:
        control = f"http://{RELAY_4}:{self.control_port}"
        done = self.tailscale(
            "up",
            f"--login-server={control}",
            f"--hostname={self.name}",
            "--accept-dns=false",
            "--timeout=45s",
            *flags,
        )
        assert done.returncode == 0, f"{done.stdout}\n{self.log}"

    def address(self) -> str:
        return self.tailscale("ip", "-4").stdout.strip()

    def ping(self, other: "Node", patience: int = 5) -> str | None:
        """The line that tells by which way one ping came back; None where it did not."""
        done = self.tailscale(
            "ping", "--c=1", "--until-direct=false", f"--timeout={patience}s", other.address()
        )
        found = re.search(r"^pong from .*$", done.stdout, re.MULTILINE)
        return found[0] if found else None

    def key(self) -> Key:
        """Its node key, from its state."""
        state = json.loads((self.folder / "tailscaled.state").read_text())
        (profile,) = (
            json.loads(base64.b64decode(value))
            for name, value in state.items()
            if name.startswith("profile-")
        )
        private = bytes.fromhex(profile["Config"]["PrivateNodeKey"].removeprefix("privkey:"))
        return Key(self.name, private, crypto_scalarmult_base(private))

    def peer(self, other: "Node") -> dict[str, object]:
        """What tailscaled says of the other one."""
        status = json.loads(self.tailscale("status", "--json").stdout)
        found: dict[str, object] = next(
            p for p in status["Peer"].values() if p["HostName"] == other.name
        )
        return found


def last_words(log: str) -> str:
    """The line of a Go program's log that says why it ended: that of its panic, or the last one."""
    lines = [line for line in log.splitlines() if line.strip()] or ["it said nothing"]
    return next(
        (line for line in lines if line.startswith(("panic: ", "fatal error: "))), lines[-1]
    )


@attrs.frozen
class Tailnet:
    relay: Relay
    middle: Namespace
    alice: Node
    bob: Node
    binaries: dict[str, Path]
    checksum: str
    """SHA-256 of what bob serves."""

    def fetch(self) -> dict[str, object]:
        """Alice fetches what bob serves."""
        url = f"http://{self.bob.address()}:{BLOB_PORT}/"
        done = subprocess.run(
            [
                *self.alice.space.prefix,
                *(str(self.binaries["derpcheck"]), "fetch", "-socks", SOCKS, "-timeout", "90s"),
                url,
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        result: dict[str, object] = json.loads(done.stdout)
        return result

    def varz(self, name: str) -> float:
        """A metric of the relay, asked from its own loopback."""
        url = f"http://127.0.0.1:{self.relay.http_port}/debug/varz"
        script = f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"
        page = self.middle.run(sys.executable, "-c", script)
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        assert found, page
        return float(found[1])


def eventually(what: str, patience: float, attempt: Callable[[], bool]) -> float:
    """Try until it works; how many seconds that took."""
    start = time.monotonic()
    while not attempt():
        assert time.monotonic() < start + patience, f"not so after {patience} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - start


@contextlib.contextmanager
def background(
    command: list[str], log: Path, env: dict[str, str], stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the block runs; its standard output can be read."""
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@attrs.frozen
class Served:
    """A relay that runs in the middle, and how the tailnet comes to it."""

    relay: Relay
    trust: Path
    """PEM file of whom its certificate comes from."""
    node: Mapping[str, object]
    """The relay's DERP node, as far as it is not about addresses and ports."""


Serve = Callable[[Namespace], AbstractContextManager[Served]]

Control = Callable[[Namespace, Mapping[str, object]], AbstractContextManager[Sequence[str]]]
"""Runs a control server at RELAY_4 and CONTROL_PORT, which tells of this DERP node; gives the flags
that `tailscale up` needs to be let in."""


def tailscales_control(
    derpcheck: Path,
    folder: Path,
    members: Sequence[Key] = (),
    port: int = CONTROL_PORT,
    *,
    old: bool = False,
) -> Control:
    """Tailscale's own for tests; the tailnet has these members more, for which nothing runs.

    `old` tells of peers as tailscaled before 1.80 has to be told.
    """

    @contextlib.contextmanager
    def control(middle: Namespace, node: Mapping[str, object]) -> Iterator[Sequence[str]]:
        command = [*middle.prefix, str(derpcheck), "control", "-node", json.dumps(node)]
        command += [f"-member=nodekey:{member.public.hex()}" for member in members]
        command += ["-listen", f"{RELAY_4}:{port}", *(["-old"] if old else [])]
        with background(command, folder / "control.log", environment()) as process:
            ready(process)
            yield []

    return control


def expel(net: Tailnet, member: Key) -> None:
    """Make every tailscaled forget one of the members for which nothing runs."""
    url = f"http://{RELAY_4}:{CONTROL_PORT}/expel?member=nodekey:{member.public.hex()}"
    script = f"import urllib.request as u; u.urlopen({url!r}, b'', {TIMEOUT})"
    net.middle.run(sys.executable, "-c", script)


def join(middle: Namespace, space: Namespace, number: int) -> None:
    """Join a namespace to the middle, by the network of that number."""
    link(middle, f"veth{number}", space, "eth0")
    middle.address(f"veth{number}", f"10.88.{number}.1/24", f"fd88:{number}::1/64")
    space.address("eth0", f"10.88.{number}.2/24", f"fd88:{number}::2/64")
    space.run("ip", "route", "add", "default", "via", f"10.88.{number}.1")
    space.run("ip", "-6", "route", "add", "default", "via", f"fd88:{number}::1")


def start_node(
    name: str,
    space: Namespace,
    folder: Path,
    programs: dict[str, Path],
    served: Served,
    control_port: int = CONTROL_PORT,
) -> Node:
    """Start a tailscaled that trusts the relay."""
    home = folder / name
    home.mkdir()
    env = environment(
        HOME=str(home),
        SSL_CERT_FILE=str(served.trust),
        TS_DEBUG_NEVER_DIRECT_UDP="1",
        TS_NO_LOGS_NO_SUPPORT="1",
    )
    one = Node(name, space, home, programs, env, control_port)
    one.start()
    return one


@contextlib.contextmanager
def tailnet(
    command: list[str],
    binaries: dict[str, Path],
    ca: TestCA,
    folder: Path,
    *,
    blob_size: int = BLOB_SIZE,
    flags: Sequence[str] = (),
) -> Iterator[Tailnet]:
    """Everything up and both nodes logged in, the relay run by this command and these flags.

    The programs needed are derpcheck, tailscaled and tailscale; bob serves `blob_size` bytes.
    """
    hostname = "derp.test"

    @contextlib.contextmanager
    def serve(middle: Namespace) -> Iterator[Served]:
        ca.issue(folder, hostname)
        relay = Relay(
            *("relay", command, folder),
            listen="",
            hostname=hostname,
            stun=True,
            flags=flags,
            prefix=middle.prefix,
        )
        relay.start()
        try:
            yield Served(relay, ca.pem, {"HostName": hostname})
        finally:
            relay.kill()

    with tailnet_through(serve, binaries, folder, blob_size=blob_size) as net:
        yield net


@contextlib.contextmanager
def tailnet_through(
    serve: Serve,
    binaries: dict[str, Path],
    folder: Path,
    *,
    blob_size: int = BLOB_SIZE,
    control: Control | None = None,
    bobs: dict[str, Path] | None = None,
) -> Iterator[Tailnet]:
    """Everything up and both nodes logged in, the relay being the one that `serve` starts.

    `control` is `tailscales_control` unless given; `bobs` are bob's tailscaled and tailscale, if
    other ones than alice's.
    """
    with contextlib.ExitStack() as stack:
        middle, left, right = (Namespace.make() for _ in range(3))
        for space in (middle, left, right):
            stack.callback(space.close)
        # 1.86 and older ones can't be told to try no other way: they must find none.
        middle.forward_nothing()
        middle.address("lo", f"{RELAY_4}/32", f"{RELAY_6}/128")
        for number, space in enumerate((left, right), start=1):
            join(middle, space, number)

        served = stack.enter_context(serve(middle))
        relay = served.relay
        node = {
            "Name": "900a",
            "IPv4": RELAY_4,
            "IPv6": RELAY_6,
            "DERPPort": relay.port,
            "STUNPort": relay.stun_port,
            **served.node,
        }
        control = control or tailscales_control(binaries["derpcheck"], folder)
        flags = stack.enter_context(control(middle, node))
        serve_blob = [*right.prefix, str(binaries["derpcheck"]), "serve", "-size", str(blob_size)]
        serve_blob += ["-listen", f"127.0.0.1:{BLOB_PORT}"]
        blob = stack.enter_context(background(serve_blob, folder / "s.log", environment()))
        checksum = ready(blob)

        nodes = []
        for name, space, programs in (("alice", left, binaries), ("bob", right, bobs or binaries)):
            one = start_node(name, space, folder, programs, served)
            stack.callback(one.kill)
            nodes.append(one)
        for one in nodes:
            one.up(*flags)
        alice, bob = nodes
        yield Tailnet(relay, middle, alice, bob, binaries, checksum)


def ready(process: subprocess.Popen[str]) -> str:
    """The first line that a helper prints, which says that it serves."""
    assert process.stdout
    line = process.stdout.readline().strip()
    assert line, "the helper ended"
    return line
