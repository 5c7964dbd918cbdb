"""The stage on which a scripted exchange is played, once against each derper.

A scenario drives peers and says what to wait for; the stage writes down what came, in a form that
two derpers with the same key share: keys by name, boxes opened, keepalives and barriers left out.
The two transcripts must then be equal, but for the lines that a scenario declares to differ.
"""

import contextlib
import functools
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping

import attrs
from nacl.exceptions import CryptoError

from tests.interop import rawderp
from tests.interop.rawderp import PATIENCE, SERVER, EndedError, Key, SilentError, Wire, client_info
from tests.support import derp
from tests.support.derp import (
    KEEP_ALIVE,
    MAGIC,
    PEER_GONE,
    PING,
    PONG,
    RECV_PACKET,
    SEND_PACKET,
    SERVER_INFO,
    SERVER_KEY,
    UPGRADE,
    frame,
    upgrade_request,
)


@attrs.frozen
class Difference:
    """What stands in place of a line of the Go derper's transcript with ours, and why."""

    ours: str | tuple[str, ...]
    why: str


@attrs.frozen
class Scenario:
    """An exchange to play; `differs` maps a line of the Go derper's transcript to ours."""

    name: str
    play: Callable[["Stage"], None]
    differs: Mapping[str, Difference]

    def expected(self, transcript: list[str]) -> list[str]:
        """What ours should do where this is what the Go derper did."""
        missing = self.differs.keys() - set(transcript)
        assert not missing, f"the Go derper no longer does {missing}; it did {transcript}"
        lines: list[str] = []
        for line in transcript:
            ours = self.differs[line].ours if line in self.differs else line
            lines += [ours] if isinstance(ours, str) else ours
        return lines


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, differs: Mapping[str, Difference] | None = None
) -> Callable[[Callable[["Stage"], None]], Callable[["Stage"], None]]:
    def add(play: Callable[["Stage"], None]) -> Callable[["Stage"], None]:
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, play, differs or {})
        return play

    return add


@attrs.frozen
class Place:
    """Where one derper listens. Its key is `rawderp.SERVER`."""

    tls: tuple[str, int]
    plain: tuple[str, int]
    http: tuple[str, int]
    """The port-80 listener beside `tls`."""
    stun: tuple[str, int]
    ca: str
    """PEM file of the authority that `tls` has its certificate from."""

    def tls_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


class Stage:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.transcript: list[str] = []
        self.peers: list[Peer] = []

    def note(self, line: str) -> None:
        self.transcript.append(line)

    def connect(self, name: str, *, tls: bool = False, port80: bool = False) -> "Peer":
        """A connection that has sent nothing yet."""
        place = self.place
        address = place.tls if tls else place.http if port80 else place.plain
        wire = Wire.connect(address, place.tls_context() if tls else None)
        peer = Peer(self, name, wire)
        self.peers.append(peer)
        return peer

    def login(self, name: str, key: str | None = None, *, tls: bool = False) -> "Peer":
        """A connection that is logged in, with the key of its own name or another."""
        peer = self.connect(name, tls=tls)
        peer.upgrade()
        peer.greet(key)
        return peer

    def close(self) -> None:
        """Hang up everywhere, and wait until the derper has seen it."""
        for peer in self.peers:
            peer.close()
        self.peers.clear()
        deadline = time.monotonic() + PATIENCE
        while (left := self.connections()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            self.note(f"({left} connections are still there)")

    def connections(self) -> int:
        """How many clients the derper's metrics say are logged in."""
        total = 0
        for tls in (False, True):
            asking = self.connect("metrics", tls=tls)
            asking.send(upgrade_request("Connection: close", path="/debug/varz"))
            head = asking.wire.take_response()
            found = re.search(rb"^derp_current_connections (\d+)$", asking.body(head), re.MULTILINE)
            assert found
            total += int(found[1])
            asking.close()
        self.peers.clear()
        return total


class Peer:
    """One connection, and what is written down about it under its name."""

    def __init__(self, stage: Stage, name: str, wire: Wire) -> None:
        self.stage = stage
        self.name = name
        self.key = Key.named(name)
        self.wire = wire

    def note(self, what: str) -> None:
        self.stage.note(f"{self.name}: {what}")

    def close(self) -> None:
        self.wire.close()

    # --- sending

    def send(self, data: bytes) -> None:
        """A connection that is already closed shows when it is read."""
        with contextlib.suppress(EndedError):
            self.wire.send(data)

    def frame(self, kind: int, payload: bytes = b"") -> None:
        self.send(frame(kind, payload))

    def packet(self, to: "Peer | Key", payload: bytes) -> None:
        key = to if isinstance(to, Key) else to.key
        self.frame(SEND_PACKET, key.public + payload)

    def upgrade(self) -> None:
        """The way in, taken for granted."""
        self.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1"))

    def greet(self, key: str | None = None, info: bytes = b'{"version":2}') -> None:
        """Log in, taken for granted."""
        self.key = Key.named(key or self.name)
        kind, payload = self.wire.take_frame()
        assert (kind, payload) == (SERVER_KEY, MAGIC + SERVER.public)
        self.send(client_info(self.key, info, SERVER.public))
        kind, payload = self.wire.take_frame()
        assert kind == SERVER_INFO

    # --- receiving, written down

    def describe(self, kind: int, payload: bytes) -> str:
        match kind:
            case derp.SERVER_KEY:
                extra = payload[len(MAGIC) + 32 :]
                return f"ServerKey {who(payload[len(MAGIC) :][:32])} extra={extra.hex()!r}"
            case derp.SERVER_INFO:
                return f"ServerInfo {self.opened(payload)}"
            case derp.RECV_PACKET:
                return f"packet from {who(payload[:32])}: {brief(payload[32:])}"
            case derp.PEER_GONE:
                return f"{who(payload[:32])} is gone, reason {payload[32:].hex()}"
            case derp.PONG:
                return f"pong {payload.hex()}"
        return f"frame {kind:#04x}: {brief(payload)}"

    def opened(self, box: bytes) -> str:
        try:
            info = json.loads(self.key.open(SERVER.public, box))
        except CryptoError:
            return "in a box that can't be opened"
        return json.dumps(info, sort_keys=True)

    def take(self, count: int = 1, patience: float = PATIENCE) -> None:
        """Wait for so many frames."""
        try:
            while count:
                kind, payload = self.wire.take_frame(patience)
                if kind != KEEP_ALIVE:
                    self.note(self.describe(kind, payload))
                    count -= 1
        except EndedError:
            self.note("closed")
        except SilentError:
            self.note("(waited in vain)")

    def take_any_order(self, count: int) -> None:
        """Wait for so many frames, whose order is left to chance."""
        before = len(self.stage.transcript)
        self.take(count)
        self.stage.transcript[before:] = sorted(self.stage.transcript[before:])

    def barrier(self) -> list[tuple[int, bytes]]:
        """All frames that are under way: whatever comes until a second ping is answered.

        Of the second, for the Go derper may answer a ping ahead of a packet that it already had;
        it does not flush the one without the other, though. Raises EndedError and SilentError,
        having written down what came before.
        """
        came = []
        try:
            for number in (1, 2):
                mark = f"settle{number}\x00".encode()
                self.frame(PING, mark)
                while (got := self.wire.take_frame()) != (PONG, mark):
                    if got[0] != KEEP_ALIVE:
                        came.append(got)
        except (EndedError, SilentError):
            for kind, payload in came:
                self.note(self.describe(kind, payload))
            raise
        return came

    def settle(self) -> None:
        """Write down all that is under way, and whether the connection still stands."""
        try:
            for kind, payload in self.barrier():
                self.note(self.describe(kind, payload))
        except EndedError:
            self.note("closed")
        except SilentError:
            self.note("(answers no ping)")
        else:
            self.note("settled")

    def end(self, patience: float = PATIENCE) -> None:
        """Wait for the connection to be closed, taking what still comes."""
        try:
            while True:
                kind, payload = self.wire.take_frame(patience)
                if kind != KEEP_ALIVE:
                    self.note(self.describe(kind, payload))
        except EndedError:
            self.note("closed")
        except SilentError:
            self.note("(still open)")

    def response(self, *, body: bool = True, patience: float = PATIENCE) -> None:
        """Wait for an HTTP response, and write down what of it is meant for machines.

        Refusals and redirects are worded by each derper in its own way: of them the status and
        where they lead to count. Of other responses all counts but Date and Content-Length.
        `body` says whether there is one to be read; not so after HEAD.
        """
        try:
            head = self.wire.take_response(patience)
            content = self.body(head) if body and head.status not in {101, 204, 304} else None
        except EndedError:
            self.note("closed without a response")
            return
        except SilentError:
            self.note("(no response)")
            return
        if head.status >= 300:
            self.note(f"HTTP {head.status} {head.get('location') or ''}".rstrip())
            return
        ignored = {"date", "content-length"} | ({"connection"} if head.status != 101 else set())
        shown = sorted(f"{n}: {v}" for n, v in head.headers if n not in ignored)
        self.note(f"HTTP {head.status} {' | '.join(shown)}")
        if content is not None:
            self.note(f"body {brief(content)}")

    def body(self, head: rawderp.Response) -> bytes:
        if length := head.get("content-length"):
            return self.wire.take(int(length))
        if head.get("transfer-encoding") != "chunked":
            return self.wire.rest()
        content = b""
        while size := int(self.wire.take_until(b"\r\n"), 16):
            content += self.wire.take(size)
            self.wire.take(2)
        self.wire.take(2)
        return content


def who(public: bytes) -> str:
    """The name of a key that some scenario uses."""
    return _names().get(public, public.hex())


@functools.cache
def _names() -> dict[bytes, str]:
    names = [
        *(f"{base}{number}" for base in ("alice", "bob", "carol", "dave") for number in ("", "2")),
        *("nobody", "sender", "friend", "stranger", "leaver", "double"),
    ]
    known = {Key.named(name).public: name for name in names}
    return {**known, SERVER.public: "the relay", bytes(32): "zero"}


def brief(data: bytes) -> str:
    if len(data) <= 60:
        return repr(data)
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def wait_until_gone(watcher: Peer, leaver: Peer) -> None:
    """Close `leaver` and wait until `watcher`, who got a packet from it, is told."""
    leaver.close()
    kind, payload = watcher.wire.take_frame()
    assert (kind, payload) == (PEER_GONE, leaver.key.public + b"\x00")


def until_received(sender: Peer, receiver: Peer, payload: bytes) -> None:
    """Send to `receiver`'s key until this connection of it gets the packet.

    For where a derper needs a moment to notice that another connection is closed.
    """
    expected = (RECV_PACKET, sender.key.public + payload)
    for _ in range(200):
        sender.packet(receiver, payload)
        sender.barrier()
        if expected in receiver.barrier():
            receiver.note(f"took over, got {brief(payload)}")
            return
    receiver.note("(never took over)")
