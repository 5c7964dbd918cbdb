"""A change written to the disk: nothing is lost of the file that was there."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certs import wholefile
from derp.errors import PolicyNotWritten
from derp.files.rewrite import SETTLED_AFTER, TRIES
from derp.policy.change import Change
from derp.policy.file import load
from derp.policy.model import Policy
from derp.policy.rewrite import Rewriter
from derp.wire.keys import node_public_text

KEY = bytes(range(32))
DENY, ALLOW = Change(KEY, allowed=False), Change(KEY, allowed=True)
ENTRY = f'\n[clients."{node_public_text(KEY)}"]\ndeny = true\n'

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "policy.toml"
    found.write_text("[defaults] # of all\n")
    return found


def write_change(path: Path, change: Change) -> Policy:
    return Rewriter(path, lambda _: None).write(change)


def test_the_file_says_so_and_is_returned(path: Path) -> None:
    policy = write_change(path, DENY)
    assert path.read_text() == "[defaults] # of all\n" + ENTRY
    assert policy == load(path)
    assert policy.of(KEY).allowed is False
    assert [each.name for each in path.parent.iterdir()] == ["policy.toml"]


def test_what_it_says_already_is_not_written_again(path: Path) -> None:
    write_change(path, DENY)
    before = path.stat()
    assert write_change(path, DENY).of(KEY).allowed is False
    assert path.stat() == before


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_mode_stays(path: Path, mode: int) -> None:
    path.chmod(mode)
    write_change(path, DENY)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@needs_root
def test_the_owner_stays(path: Path) -> None:
    os.chown(path, 1234, 4321)
    write_change(path, DENY)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_an_access_control_list_stays(path: Path) -> None:
    # acl(5), as the kernel has it: version 2; user::rw-, user 1234:r--, group::---, mask::r--,
    # other::---. Without it the mask would be the rights of the group.
    def entry(tag: int, rights: int, who: int = 0xFFFFFFFF) -> bytes:
        return b"".join(
            number.to_bytes(size, "little") for number, size in ((tag, 2), (rights, 2), (who, 4))
        )

    acl = b"\2\0\0\0" + b"".join(
        (entry(1, 6), entry(2, 4, 1234), entry(4, 0), entry(16, 4), entry(32, 0))
    )
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no access-control lists here")
    write_change(path, DENY)
    assert os.getxattr(path, "system.posix_acl_access") == acl


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path.name)
    write_change(link, DENY)
    assert link.is_symlink()
    assert path.read_text().endswith(ENTRY)


def test_a_byte_order_mark_stays(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf[defaults]\r\n")
    write_change(path, DENY)
    assert path.read_bytes() == b"\xef\xbb\xbf[defaults]\r\n" + ENTRY.replace("\n", "\r\n").encode()


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any], times: int) -> list[int]:
    """Have `change` called after the new file was made, in the first `times` tries."""
    calls: list[int] = []
    take_over = wholefile._take_over

    def noted(*args: Any) -> None:
        take_over(*args)
        calls.append(1)
        if len(calls) <= times:
            change()

    monkeypatch.setattr(wholefile, "_take_over", noted)
    return calls


def test_what_changes_meanwhile_is_read_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change() -> None:
        path.write_text(f"[defaults] # changed\n{ENTRY}".replace("deny", "allow") + "# by hand\n")

    calls = meanwhile(monkeypatch, change, 1)
    write_change(path, DENY)
    assert path.read_text() == f"[defaults] # changed\n{ENTRY}# by hand\n"
    assert len(calls) == 2


def test_what_changes_all_the_time_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = iter(range(100))
    calls = meanwhile(monkeypatch, lambda: path.write_text(f"[defaults] # {next(number)}"), 100)
    with pytest.raises(PolicyNotWritten, match="is being changed by another program"):
        write_change(path, DENY)
    assert len(calls) == TRIES
    assert path.read_text() == f"[defaults] # {TRIES - 1}"
    assert len([*path.parent.iterdir()]) == 1


def test_what_another_program_writes_in_parts_is_waited_for(path: Path) -> None:
    """It writes in place: what it writes after an exchange would go into no file."""
    with path.open("w") as stream:
        stream.write("[defaults]\n# the fir")
        stream.flush()
        waits: list[float] = []

        def rest(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 1:
                stream.write("st\n# the second\n")
                stream.flush()

        assert Rewriter(path, rest).write(DENY).of(KEY).allowed is False
    assert waits == [SETTLED_AFTER] * 2
    assert path.read_text() == "[defaults]\n# the first\n# the second\n" + ENTRY


def test_what_does_not_settle_is_left_alone(path: Path) -> None:
    number = iter(range(100))

    def more(_: float) -> None:
        path.write_text(f"[defaults] # {next(number)}")

    with pytest.raises(PolicyNotWritten, match="is being changed by another program"):
        Rewriter(path, more).write(DENY)
    assert path.read_text() == f"[defaults] # {TRIES - 1}"


def test_what_is_old_or_of_its_own_is_not_waited_for(path: Path) -> None:
    def never(_: float) -> None:
        raise AssertionError("it waits")

    before = time.time() - SETTLED_AFTER
    os.utime(path, (before, before))
    rewriter = Rewriter(path, never)
    rewriter.write(DENY)
    rewriter.write(ALLOW)
    path.write_text("[defaults]\n")
    with pytest.raises(AssertionError, match="it waits"):
        rewriter.write(DENY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[defaults]\nrat = 1", r"-policy '.*policy\.toml': line 2: unknown name rat"),
        ("", "nothing in it"),
        (f'clients = {{ "{node_public_text(KEY)}" = {{}} }}', "can't be edited: all its entries"),
    ],
)
def test_a_file_that_is_not_edited(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(PolicyNotWritten, match=message):
        write_change(path, DENY)
    assert path.read_text() == text


def test_a_line_that_would_be_too_long(path: Path) -> None:
    text = f'[clients."{node_public_text(KEY)}"]\n{" " * 4070}label = "{"x" * 10}"\n'
    path.write_text(text)
    with pytest.raises(PolicyNotWritten, match="would have a mistake with it: line 3: too long"):
        write_change(path, Change(KEY, rate="123456789.123456 kbit/s"))
    assert path.read_text() == text


def test_an_edit_that_says_more_than_the_change_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "derp.policy.rewrite.edited", lambda text, key, said: text + "deny = true\n" + ENTRY
    )
    with pytest.raises(PolicyNotWritten, match="would say something else with it, too"):
        write_change(path, DENY)
    assert path.read_text() == "[defaults] # of all\n"


def test_a_disk_that_takes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PolicyNotWritten, match="can't be replaced: no space left on device"):
        write_change(path, DENY)
    assert path.read_text() == "[defaults] # of all\n"
    assert len([*path.parent.iterdir()]) == 1


def test_a_file_that_is_a_mount(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(PolicyNotWritten, match="mount the directory that it is in"):
        write_change(path, DENY)
