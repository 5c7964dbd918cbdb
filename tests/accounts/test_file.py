"""The accounts file, and what bad ones get: a reason, a cure, and not a byte written."""

import errno
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from derp.accounts import database
from derp.accounts import file as accounts_file
from derp.accounts.counts import Counts
from derp.accounts.file import AccountsFile
from derp.accounts.unwritten import Unwritten
from derp.errors import AccountsFailed

NOON = 1_796_126_400.0
TODAY = "2026-12-01"
KEY = bytes(range(32))


def unwritten(sent: int = 1, keys: int = 1) -> Unwritten:
    made = Unwritten(NOON)
    for number in range(keys):
        made.add(KEY if not number else number.to_bytes(32, "big"), Counts(sent=sent))
    return made


def sent_in(path: Path) -> int:
    with closing(accounts_file.connect(path, "ro")) as db:
        return db.execute("SELECT sum(sent) FROM counts").fetchone()[0] or 0


def refusal(accounts: AccountsFile) -> AccountsFailed:
    with pytest.raises(AccountsFailed) as caught:
        accounts.write(unwritten(), TODAY, ())
    assert caught.value.cure
    assert "\n" not in str(caught.value)
    return caught.value


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """See that the content of the file, and of all beside it, stays."""

    def content() -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}

    before = content()
    yield
    assert content() == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a name?with%20 & signs\udcff" / "accounts"


@pytest.fixture(autouse=True)
def _folder(path: Path) -> None:
    path.parent.mkdir()


@pytest.fixture
def accounts(path: Path) -> Iterator[AccountsFile]:
    made = AccountsFile(path)
    yield made
    made.close()


def test_it_is_made_with_mode_0600_and_kept(accounts: AccountsFile, path: Path) -> None:
    assert accounts.write(unwritten(3), TODAY, [KEY]) == {KEY: (3, 3)}
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    accounts.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    again = AccountsFile(path)
    assert again.write(unwritten(4), TODAY, [KEY]) == {KEY: (7, 7)}
    # Others read what is written while it is open.
    assert sent_in(path) == 7
    again.close()


def test_a_file_that_is_moved_away_is_made_anew(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(3), TODAY, ())
    path.rename(path.with_name("kept"))
    accounts.write(unwritten(4), TODAY, ())
    assert sent_in(path) == 4
    assert sent_in(path.with_name("kept")) == 3


def test_an_empty_file_is_as_good_as_none(accounts: AccountsFile, path: Path) -> None:
    path.touch()
    accounts.write(unwritten(3), TODAY, ())
    assert sent_in(path) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"node keys, one a line\n", "is no accounts file"),
        (b"SQLite format 3\0 cut off", "is no accounts file"),
        (bytes(4096), "is no accounts file"),
    ],
)
def test_a_foreign_file(accounts: AccountsFile, path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with untouched(path.parent):
        assert str(refusal(accounts)) == says
        assert "move it away" in refusal(accounts).cure
    path.unlink()
    accounts.write(unwritten(), TODAY, ())


def test_another_programs_database(accounts: AccountsFile, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA user_version = 1; CREATE TABLE counts (a);")
    with untouched(path.parent):
        assert str(refusal(accounts)) == "is a database of another program"


def test_a_newer_file(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(), TODAY, ())
    accounts.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("PRAGMA journal_mode = DELETE")
    with untouched(path.parent):
        assert str(refusal(accounts)) == "is of a later derper (version 2)"


@pytest.mark.parametrize("where", [4096 + 40, 4096 * 3])
def test_a_corrupt_file(accounts: AccountsFile, path: Path, where: int) -> None:
    accounts.write(unwritten(keys=2000), TODAY, ())
    accounts.close()
    content = bytearray(path.read_bytes())
    content[where : where + 2000] = os.urandom(2000)
    path.write_bytes(content)
    for _ in range(2):
        assert "corrupt" in str(refusal(accounts)) or "malformed" in str(refusal(accounts))
        assert "move it away" in refusal(accounts).cure
    assert path.read_bytes() == content


def test_a_file_that_is_corrupt_where_nothing_is_written(
    accounts: AccountsFile, path: Path
) -> None:
    of_another_day = Unwritten(NOON)
    for number in range(2000):
        of_another_day.add(number.to_bytes(32, "big"), Counts(sent=1), "2026-11-15")
    accounts.write(of_another_day, TODAY, ())
    accounts.close()
    content = bytearray(path.read_bytes())
    content[4096 * 9 : 4096 * 10] = os.urandom(4096)
    path.write_bytes(content)
    assert str(refusal(accounts)).startswith("is corrupt (")
    assert path.read_bytes() == content


def test_a_truncated_file(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(keys=2000), TODAY, ())
    accounts.close()
    content = path.read_bytes()[:8192]
    path.write_bytes(content)
    assert "move it away" in refusal(accounts).cure
    assert path.read_bytes() == content


def test_a_file_that_is_spoiled_while_it_is_open(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(keys=5000), TODAY, ())
    with closing(accounts_file.connect(path, "rw")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 200_000)
    accounts._db.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]
    assert "move it away" in refusal(accounts).cure
    path.unlink()
    accounts.write(unwritten(), TODAY, ())
    assert sent_in(path) == 1


def test_what_is_no_regular_file(accounts: AccountsFile, path: Path) -> None:
    path.mkdir()
    assert "regular file" in refusal(accounts).cure
    path.rmdir()
    os.mkfifo(path)
    assert "is no accounts file" in str(refusal(accounts)) or refusal(accounts)
    path.unlink()
    accounts.write(unwritten(), TODAY, ())


def test_no_directory(tmp_path: Path) -> None:
    accounts = AccountsFile(tmp_path / "nowhere" / "accounts")
    assert str(refusal(accounts)) == "can't be made: No such file or directory"
    (tmp_path / "nowhere").mkdir()
    accounts.write(unwritten(), TODAY, ())
    accounts.close()


def test_an_unreadable_file(
    accounts: AccountsFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.write(unwritten(), TODAY, ())
    accounts.close()

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Root may read every file.
    monkeypatch.setattr(os, "open", denied)
    assert str(refusal(accounts)) == "can't be read: Permission denied"
    monkeypatch.undo()
    accounts.write(unwritten(), TODAY, ())
    assert sent_in(path) == 2


def test_it_is_locked(accounts: AccountsFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_file, "LOCK_TIMEOUT", 0.01)
    accounts.write(unwritten(), TODAY, ())
    with closing(accounts_file.connect(path, "rw")) as db:
        db.execute("BEGIN IMMEDIATE")
        assert "locks it" in refusal(accounts).cure
        db.execute("ROLLBACK")
    accounts.write(unwritten(), TODAY, ())
    assert sent_in(path) == 2


@contextmanager
def no_more_bytes(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond `limit`: to SQLite, a disk with an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(), TODAY, ())
    with no_more_bytes(path.with_name("accounts-wal").stat().st_size):
        for _ in range(3):
            with pytest.raises(AccountsFailed, match="can't be written"):
                accounts.write(unwritten(keys=3000), TODAY, ())
    accounts.write(unwritten(keys=3000), TODAY, ())
    assert sent_in(path) == 3001


def test_a_full_database(accounts: AccountsFile, path: Path) -> None:
    """SQLite's own limit gives the error of a full disk."""
    accounts.write(unwritten(), TODAY, ())
    db = accounts._db
    assert db is not None
    (before,) = db.execute("PRAGMA max_page_count").fetchone()
    db.execute("PRAGMA max_page_count = 2")
    with pytest.raises(AccountsFailed, match="full") as caught:
        accounts.write(unwritten(keys=3000), TODAY, ())
    assert caught.value.cure == "free space on its disk"
    db.execute(f"PRAGMA max_page_count = {before}")
    accounts.write(unwritten(keys=3000), TODAY, ())
    assert sent_in(path) == 3001


@pytest.mark.parametrize(("free", "cure"), [(0, "free space on its disk"), (1, "see to its disk")])
def test_an_error_of_input_and_output(
    free: int, cure: str, accounts: AccountsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite names a full disk so where it can't make the file's shared memory larger."""

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"
        raise error

    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free))
    monkeypatch.setattr(database, "add", fail)
    assert refusal(accounts).cure == cure


def test_a_statement_that_takes_too_long(
    accounts: AccountsFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.write(unwritten(), TODAY, ())
    monkeypatch.setattr(accounts_file, "_STEPS", 1)
    accounts.close()
    monkeypatch.setattr(accounts_file, "WRITE_TIMEOUT", -1.0)
    assert "interrupted" in str(refusal(accounts))
    monkeypatch.undo()
    accounts.close()
    accounts.write(unwritten(), TODAY, ())
    assert sent_in(path) == 2


def test_two_relays_may_share_it(accounts: AccountsFile, path: Path) -> None:
    accounts.write(unwritten(), TODAY, ())

    def write() -> None:
        other = AccountsFile(path)
        for _ in range(20):
            other.write(unwritten(), TODAY, ())
        other.close()

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(20):
        accounts.write(unwritten(), TODAY, ())
    thread.join()
    assert sent_in(path) == 41
