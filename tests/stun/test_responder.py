"""Which way the responder answers: one by one, or in batches."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stun import responder as module
from stun.batched import BatchedResponder
from stun.message import build_binding_request
from stun.plain import PlainResponder
from stun.responder import BURST, LOOK_EVERY, MAX_PER_CALL, Responder
from stun.server import open_sockets
from stun.stats import Stats

REQUEST = build_binding_request(bytes(12))


@pytest.fixture
def server() -> Iterator[socket.socket]:
    (sock,) = open_sockets("127.0.0.1", 0)
    with sock:
        yield sock


@pytest.fixture
def client(server: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(server.getsockname())
        yield sock


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many datagrams each call has asked for, 0 for a batch."""
    found: list[int] = []
    plain, batched = PlainResponder.answer, BatchedResponder.answer

    def note_plain(self: PlainResponder, most: int) -> int:
        found.append(most)
        return plain(self, most)

    def note_batched(self: BatchedResponder) -> int:
        found.append(0)
        return batched(self)

    monkeypatch.setattr(PlainResponder, "answer", note_plain)
    monkeypatch.setattr(BatchedResponder, "answer", note_batched)
    return found


def send(client: socket.socket, count: int) -> None:
    for _ in range(count):
        client.send(REQUEST)


def test_lone_requests_are_answered_one_by_one(
    server: socket.socket, client: socket.socket, calls: list[int]
) -> None:
    stats = Stats()
    responder = Responder(server, stats)
    for _ in range(2 * LOOK_EVERY):
        send(client, 1)
        assert not responder.answer()
    assert calls == [BURST, *[1] * (LOOK_EVERY - 1)] * 2
    assert stats.success == 2 * LOOK_EVERY
    with pytest.raises(BlockingIOError):
        responder.answer()


def test_two_at_once_have_the_next_call_look_for_more(
    server: socket.socket, client: socket.socket, calls: list[int]
) -> None:
    responder = Responder(server, Stats())
    for _ in range(3):
        send(client, 2)
        assert not responder.answer()
    assert calls == [BURST] * 3


def test_a_burst_is_answered_in_batches_and_what_follows_is_not(
    server: socket.socket, client: socket.socket, calls: list[int]
) -> None:
    stats = Stats()
    responder = Responder(server, stats)
    send(client, 2 * BURST)
    assert responder.answer()
    assert not responder.answer()
    send(client, 1)
    assert not responder.answer()
    send(client, 1)
    assert not responder.answer()
    assert calls == [BURST, 0, 0, BURST]
    assert stats.success == 2 * BURST + 2


@pytest.mark.parametrize("batches", [True, False])
def test_a_call_has_a_bound(
    batches: bool, monkeypatch: pytest.MonkeyPatch, server: socket.socket, client: socket.socket
) -> None:
    monkeypatch.setattr(module, "BATCHES", batches)
    stats = Stats()
    responder = Responder(server, stats)
    send(client, 2 * MAX_PER_CALL + 5)
    answered, more = 0, True
    while more:
        more = responder.answer()
        assert stats.success - answered <= MAX_PER_CALL
        answered = stats.success
    assert answered == 2 * MAX_PER_CALL + 5


@pytest.mark.parametrize("platform", ["darwin", "freebsd14"])
def test_another_system_needs_no_recvmmsg(platform: str) -> None:
    script = (
        "import ctypes, sys, trio; ctypes.CDLL = None; sys.platform = sys.argv[1];"
        "from stun import responder; import stun.server;"
        "assert not responder.BATCHES; assert 'stun.mmsg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, platform], check=True, timeout=60)
