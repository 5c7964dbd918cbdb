"""Accounts of a relay as a process: right to the byte, and whole whatever ends the relay."""

import csv
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import nacl.public
import pytest
import trio

from tests.patience import PATIENCE
from tests.peers import GONE, Peer
from tests.process import Derper, derper
from tests.support.derp import UPGRADE, upgrade_request
from tests.support.ends import StreamEnd
from tests.support.waiting import until

KILLS = 20


class Counting:
    """A client's end of a TCP connection; counts all its bytes, both ways."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._end = StreamEnd(stream)
        self.sent = self.received = 0

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        await self._end.send(data)

    async def receive(self) -> bytes:
        data = await self._end.receive()
        self.received += len(data)
        return data


async def join(relay: Derper, key: nacl.public.PrivateKey | None = None) -> tuple[Peer, Counting]:
    stream = await trio.open_tcp_stream("127.0.0.1", relay.port("HTTP"))
    end = Counting(stream)
    await end.send(upgrade_request(*UPGRADE))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        # Nothing behind the answer may be read.
        answer += bytes(await stream.receive_some(1))
        end.received += 1
    peer = Peer(end, key)
    await peer.log_in()
    return peer, end


def accounts(path: Path | None, *flags: str) -> list[dict[str, str]]:
    """Print the accounts, and read what is printed."""
    command = [sys.executable, "-m", "derp", "accounts", "-csv", *flags]
    command += [] if path is None else ["-accounts", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return list(csv.DictReader(found.stdout.splitlines()))


def by_key(path: Path) -> dict[str, tuple[int, int, int, int]]:
    columns = ("sent", "received", "packets_sent", "packets_received")
    return {row["key"]: tuple(int(row[name]) for name in columns) for row in accounts(path)}


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def name(peer: Peer) -> str:
    return f"nodekey:{peer.key.hex()}"


async def load(relay: Derper, rounds: int = 50) -> dict[str, tuple[int, int, int, int]]:
    """Have two clients send each other packets; return what each has counted itself."""
    (one, ours), (two, theirs) = await join(relay), await join(relay)
    sent = {one: 0, two: 0}
    while not sent[two]:
        # With workers, one hears of the other's clients after a moment.
        await one.send_packet(two.key, b"first")
        sent[one] += 1
        with trio.move_on_after(0.5):
            await two.receive_packet()
            sent[two] = -1
    sent[two] = 0
    dropped = sent[one] - 1
    for number in range(rounds):
        await one.send_packet(two.key, bytes(number * 20))
        await two.receive_packet()
        await two.send_packet(one.key, bytes(1000))
        await one.receive_packet()
        sent[one] += 1
        sent[two] += 1
    await leave(one, ours)
    assert (await two.receive())[0] == GONE
    await leave(two, theirs)
    return {
        name(one): (ours.received, ours.sent, sent[two], sent[one]),
        name(two): (theirs.received, theirs.sent, sent[one] - dropped, sent[two]),
    }


async def leave(peer: Peer, end: Counting) -> None:
    """Have the relay get all bytes of a client; the end of its stream acknowledges the relay's."""
    await peer.ping()
    await end.stream.send_eof()
    assert await end.receive() == b""
    await end.stream.aclose()


@pytest.mark.parametrize("workers", [1, 2])
async def test_sums_are_the_clients_own_to_the_byte(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "accounts"
    flags = ("-accounts", str(path), "-workers", str(workers))
    with derper(tmp_path, *flags, tls=False) as relay:
        if workers > 1:
            relay.wait_for("workers share the work")
        counted = await load(relay)
        for key, (sent, received, *_) in counted.items():
            short = relay.wait_for(rf"msg=left .* sent={sent} received={received} seconds=\d+ ")
            assert short, key
        assert relay.stop() == 0
    assert by_key(path) == counted
    assert names(tmp_path) == {"accounts", "derper.key"}


async def test_they_are_printed_of_a_relay_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        counted = await load(relay)
        flags = ("-of", f"{relay.process.pid}")
        until("printed", lambda: [row["key"] in counted for row in accounts(None, *flags)])
        assert by_key(path) == counted
        assert relay.stop() == 0


async def test_kill_9_loses_a_flush_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole after each kill, with all but the last flush, and nothing twice.

    One flush follows the other here, so that kills fall into one.
    """
    path, key = tmp_path / "accounts", nacl.public.PrivateKey.generate()
    often = "import derp.service.startup\nderp.service.startup.FLUSH_EVERY = 0.001\n"
    (tmp_path / "sitecustomize.py").write_text(often)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = 0
    for _ in range(KILLS):
        with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
            peer, end = await join(relay, key)
            await peer.ping()
            written = until_written(path, before + end.sent)
            flushes = Flushes(written, before + end.sent)
            for _ in range(random.randrange(200)):
                await peer.send_packet(peer.key, bytes(500))
                await peer.receive_packet()
                flushes.see(in_file(path), before + end.sent)
            relay.process.kill()
            relay.process.wait()
            await trio.aclose_forcefully(end.stream)
        assert is_whole(path)
        after = in_file(path)
        flushes.see(after, before + end.sent)
        assert written <= after <= before + end.sent
        before = after


class Flushes:
    """The file as one flush after the other leaves it.

    What the relay has got by the time that a flush is seen, the next one has, however long each
    takes: so a relay that is killed has lost what came since its last flush but one, at most.
    """

    def __init__(self, written: int, come: int) -> None:
        self._written = written
        self._come = come

    def see(self, written: int, come: int) -> None:
        """Check what is in the file, when all bytes that have come are `come`."""
        if written != self._written:
            assert written >= self._come
            self._written, self._come = written, come


def in_file(path: Path) -> int:
    """Return the bytes that the file has."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return sum(count for (count,) in db.execute("SELECT received FROM counts"))


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return list(db.execute("PRAGMA integrity_check")) == [("ok",)]


def until_written(path: Path, least: int) -> int:
    until("the file is made", lambda: path.exists() and path.stat().st_size)
    return until("the counts are written", lambda: max(0, in_file(path) - least + 1)) + least - 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "accounts-test", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


TROUBLE = r'msg="the accounts are kept in memory only" .*reason="([^"]*)" cure="([^"]*)"'
AGAIN = 'msg="the accounts are written again"'


async def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    path, ballast = small_disk / "accounts", small_disk / "ballast"
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        until("the file is made", lambda: path.exists() and path.stat().st_size)
        fill(ballast)
        counted = await load(relay)
        assert "free space" in relay.wait_for(TROUBLE)[2]
        counted |= await load(relay)
        ballast.unlink()
        relay.wait_for(AGAIN)
        assert relay.stop() == 0
    assert by_key(path) == counted


async def test_a_disk_that_is_full_from_the_start(tmp_path: Path, small_disk: Path) -> None:
    path, ballast = small_disk / "accounts", small_disk / "ballast"
    fill(ballast)
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        relay.wait_for(TROUBLE)
        counted = await load(relay)
        ballast.unlink()
        relay.wait_for(AGAIN)
        assert relay.stop() == 0
    assert by_key(path) == counted


async def test_a_file_system_that_becomes_read_only(tmp_path: Path, small_disk: Path) -> None:
    path = small_disk / "accounts"
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        counted = await load(relay)
        assert relay.stop() == 0
    remount(small_disk, "ro")
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        assert "write to it and to its directory" in relay.wait_for(TROUBLE)[2]
        counted |= await load(relay)
        remount(small_disk, "rw")
        relay.wait_for(AGAIN)
        assert relay.stop() == 0
    assert by_key(path) == counted


def remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", place], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize(
    ("content", "says"), [(b"a diary\n", "is no accounts file"), (None, "No such file")]
)
async def test_a_bad_file_keeps_no_relay_from_serving(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "new" / "accounts"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with derper(tmp_path, "-accounts", str(path), tls=False) as relay:
        found = relay.wait_for(TROUBLE)
        assert says in found[1]
        await load(relay)
        assert relay.stop() == 0
        assert len([line for line in relay.log if re.search(TROUBLE, line)]) == 1
    assert (path.read_bytes() if path.exists() else None) == content
