"""A -verify-client-file that is edited, broken and replaced while clients come and go."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import attrs
import pytest

from tests.interop.logins import (
    ADMITTED,
    DEADLINE,
    REFUSED,
    log_in,
    pass_packet,
    verdict,
    wait_for_end,
)
from tests.interop.oracle import REFUSE, oracle
from tests.interop.rawderp import SERVER, Key
from tests.interop.relay import Relay, running, write_key_file
from tests.interop.said import BY_URL
from tests.interop.tailnet import eventually
from tests.support.waiting import until

OLD = [Key.named(f"of the list {number}") for number in range(20)]
IN_FORCE, STAYS = "new list of node keys", "the old list stays in force"
STRANGER = Key.named("in no list")


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper has no list")


def text_of(keys: Sequence[Key]) -> str:
    lines = [f"nodekey:{key.public.hex()}\tlabel of {key.name}  # comment" for key in keys]
    return "\n".join(["# who may", "", *lines, ""])


@attrs.frozen
class Listed:
    """A relay and its list."""

    relay: Relay
    path: Path

    def write(self, text: str) -> None:
        """As an editor does: another file takes its place."""
        beside = self.path.with_name("beside")
        beside.write_text(text)
        beside.replace(self.path)

    def look(self) -> None:
        """Have it read again at once."""
        assert self.relay.process
        self.relay.process.send_signal(signal.SIGHUP)

    def edit(self, text: str) -> None:
        """Put another list in force, at once."""
        before = len(re.findall(IN_FORCE, self.relay.log))
        self.write(text)
        self.look()
        self.wait_for_log(IN_FORCE, before + 1)

    def wait_for_log(self, pattern: str, times: int) -> None:
        def count() -> int:
            return len(re.findall(pattern, self.relay.log))

        eventually(f"{times} times {pattern}", DEADLINE, lambda: count() >= times)
        assert count() == times


@pytest.fixture
def listed(under_test: list[str], tmp_path: Path) -> Iterator[Listed]:
    with listing(under_test, tmp_path) as started:
        yield started


@contextmanager
def listing(
    command: Sequence[str], folder: Path, *flags: str, prefix: Sequence[str] = ()
) -> Iterator[Listed]:
    path = folder / "keys"
    path.write_text(text_of(OLD))
    write_key_file(folder / "derper.key", SERVER.private)
    flags = ("-verify-client-file", str(path), *flags)
    relay = Relay("relay", command, folder, tls=False, flags=flags, prefix=prefix)
    with running(relay):
        yield Listed(relay, path)


@contextmanager
def load(relay: Relay) -> Iterator[None]:
    """Meanwhile, who is in every list comes and is let in, and a stranger is not. Always."""
    over = threading.Event()

    def come(key: Key, expected: str) -> int:
        times = 0
        while not over.is_set():
            assert verdict(relay, key) == expected
            times += 1
        return times

    comers = [*((key, ADMITTED) for key in OLD[:3]), (STRANGER, REFUSED)]
    with ThreadPoolExecutor(len(comers)) as pool:
        coming = [pool.submit(come, *comer) for comer in comers]
        try:
            yield
        finally:
            over.set()
        assert all(one.result() > 20 for one in coming)


def test_edited_under_load(listed: Listed) -> None:
    stays = OLD[-1]
    with load(listed.relay), closing(log_in(listed.relay, stays)) as inside:
        for number in range(20):
            new = Key.named(f"new {number}")
            listed.edit(text_of([*OLD, new]))
            with closing(log_in(listed.relay, new)) as wire:
                pass_packet(wire, new, inside, stays)
                listed.edit(text_of(OLD))
                wait_for_end(wire)
            assert verdict(listed.relay, new) == REFUSED
        pass_packet(inside, stays, inside, stays)


def test_edited_by_and_by(listed: Listed) -> None:
    """Without a signal, and written in place, in pieces: no half of it is ever in force."""
    new = Key.named("new at last")
    pieces = text_of([*OLD, new]).encode()
    with load(listed.relay), listed.path.open("wb", buffering=0) as stream:
        for start in range(0, len(pieces), 200):
            stream.write(pieces[start : start + 200])
            time.sleep(0.02)  # an editor on a slow disk
        listed.wait_for_log(IN_FORCE, 1)
        assert verdict(listed.relay, new) == ADMITTED
    assert STAYS not in listed.relay.log


def truncate(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 90)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    # How it is broken, and what the log then says.
    "truncated": (truncate, f"line {2 + len(OLD)}"),
    "a key too short": (lambda p: p.write_text("# x\n\nnodekey:12 printer\n"), "line 3"),
    "no list": (lambda p: p.write_bytes(os.urandom(5000)), "line 1"),
    "very large": (lambda p: p.write_bytes(b"#" * (20 << 20)), "at most 16 MiB"),
    "a directory": (replace_by_directory, "Is a directory"),
    "gone": (Path.unlink, "No such file"),
}


def told(listed: Listed, before: int) -> list[str]:
    """Return what the log says of an old list that stays, but for the first times."""
    return re.findall(f"{STAYS}.*", listed.relay.log)[before:]


def check_broken(
    listed: Listed, fresh: Iterator[Key], spoil: Callable[[Path], object], said: str
) -> None:
    """The old list stays in force, the log says why, and a good one is taken again."""
    before = len(re.findall(STAYS, listed.relay.log))
    spoil(listed.path)
    listed.look()
    # What was broken before may be told once more meanwhile.
    where = f"-verify-client-file '{listed.path}'"
    until(
        f"told of {said}",
        lambda: [line for line in told(listed, before) if said in line and where in line],
    )
    assert verdict(listed.relay, next(fresh)) == ADMITTED
    assert verdict(listed.relay, Key.named(f"stranger {before}")) == REFUSED
    if listed.path.is_dir():
        listed.path.rmdir()
    new = Key.named(f"mended {before}")
    listed.edit(text_of([*OLD, new]))
    assert verdict(listed.relay, new) == ADMITTED


def test_broken(listed: Listed) -> None:
    """In every way, one after the other; and who is in stays in."""
    fresh = iter(OLD)
    stays = next(fresh)
    with closing(log_in(listed.relay, stays)) as inside:
        for spoil, said in BREAKS.values():
            check_broken(listed, fresh, spoil, said)
        pass_packet(inside, stays, inside, stays)


def test_unreadable(under_test: list[str], tmp_path: Path) -> None:
    prefix: Sequence[str] = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and there is no setpriv to stop it")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    with listing(under_test, tmp_path, prefix=prefix) as listed:
        # Its socket is there before it takes signals.
        listed.relay.wait_for_log("clients are checked")
        check_broken(listed, iter(OLD), lambda path: path.chmod(0), "Permission denied")


def test_removed_while_the_url_hangs(under_test: list[str], tmp_path: Path) -> None:
    """That others have to be asked about again keeps nobody in who was removed."""
    others = [Key.named(f"by the URL {number}") for number in range(50)]
    with (
        oracle(tmp_path) as server,
        listing(under_test, tmp_path, "-verify-client-url", server.url) as listed,
        ExitStack() as stack,
    ):
        server.admit(*others)
        removed = OLD[-1]
        server.admit(removed, steps=REFUSE)
        inside = [stack.enter_context(closing(log_in(listed.relay, key))) for key in others]
        leaving = stack.enter_context(closing(log_in(listed.relay, removed)))
        server.admit(*others, steps=BY_URL["nothing"])
        listed.edit(text_of(OLD[:-1]))
        wait_for_end(leaving, 12)
        for key, wire in zip(others, inside, strict=True):
            pass_packet(wire, key, wire, key)
