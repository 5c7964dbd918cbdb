"""The accounts file: an SQLite database, written by one thread at a time.

A file that is not ours, not whole, or of a later program is never written to: its header is read
before SQLite may open it, and SQLite checks it read-only before it may write. Each write is one
transaction, which is on the disk when it ends (WAL, synchronous=FULL); a process that is killed
loses what it had not written, and nothing else. All functions block.
"""

import contextlib
import errno
import os
import sqlite3
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from derp.accounts import database
from derp.accounts.unwritten import Unwritten
from derp.errors import AccountsFailed

WRITE_TIMEOUT: Final = 30.0
"""Seconds of computing after which a statement is given up."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds for which another program may lock the file."""

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_LENGTH: Final = 100
_VERSIONS: Final = struct.Struct(">60x I 4x I 28x")
"""user_version and application_id in the header (sqlite.org/fileformat.html, 1.3)."""
_STEPS: Final = 100_000
_MOVE_AWAY: Final = "move it away to have a new one made, or name another with -accounts"
_WRITABLE: Final = "let the relay's user write to it and to its directory"
_CURES: Final = {
    "SQLITE_FULL": "free space on its disk",
    "SQLITE_READONLY": _WRITABLE,
    "SQLITE_BUSY": "end the program that locks it",
    "SQLITE_LOCKED": "end the program that locks it",
    "SQLITE_IOERR": "see to its disk",
    "SQLITE_CANTOPEN": _WRITABLE,
    "SQLITE_PERM": _WRITABLE,
    "SQLITE_CORRUPT": _MOVE_AWAY,
    "SQLITE_NOTADB": _MOVE_AWAY,
    "SQLITE_INTERRUPT": "see to its disk",
}
_REOPEN: Final = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_CANTOPEN"}
"""Errors that may be gone once the database is opened again."""


class AccountsFile:
    """The file at `path`, made at the first write. Not to be used by two threads at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._folded = ""
        self._checked: os.stat_result | None = None
        self._refused: tuple[os.stat_result, AccountsFailed] | None = None
        self._deadline = 0.0

    def write(
        self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]
    ) -> Mapping[bytes, tuple[int, int]]:
        """Add all counts; return the bytes of `wanted` keys in the current day and month.

        Raises AccountsFailed if nothing was added.
        """
        self._deadline = time.monotonic() + WRITE_TIMEOUT
        try:
            db = self._opened()
            with database.transaction(db):
                database.add(db, unwritten)
                if self._folded != today:
                    database.fold(db, today)
                found = database.used(db, wanted, today)
        except sqlite3.Error as error:
            if _name(error) in _REOPEN:
                self.close()
            raise self._failed(error) from error
        except OSError as error:
            raise _unreadable(error) from error
        self._folded = today
        return found

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        db, self._db = self._db, None
        if db is not None:
            self._deadline = time.monotonic() + WRITE_TIMEOUT
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _opened(self) -> sqlite3.Connection:
        """Return the open database; open the file if it is not the one at the path any more."""
        if self._db is not None:
            with contextlib.suppress(OSError):
                found = self.path.stat()
                if (found.st_dev, found.st_ino) == self._identity:
                    return self._db
            # The file was moved away: the rows in its WAL would stay at the old path.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.close()
        self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        self._folded = ""
        size = self._examine()
        try:
            if size:
                self._check()
            else:
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            found = self.path.stat()
            db = connect(self.path, "rw")
        except OSError as error:
            cure = f"{_WRITABLE}, or name another with -accounts"
            raise AccountsFailed(f"can't be made: {error.strerror}", cure) from error
        try:
            self._limit(db)
            db.execute("PRAGMA synchronous = FULL")
            if not size:
                database.create(db)
            # Without shared memory, as on some network file systems, the old mode stays.
            db.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            db.close()
            raise
        self._identity = found.st_dev, found.st_ino
        return db

    def _examine(self) -> int:
        """Return the file's size, 0 if there is none. Raises AccountsFailed if it isn't ours."""
        try:
            found = self.path.stat()
        except OSError:
            # Reading it reports the error.
            found = None
        if self._refused is not None and found is not None:
            before, failed = self._refused
            if _same(before, found):
                # A large file that is corrupt isn't read again and again.
                raise AccountsFailed(str(failed), failed.cure)
        self._refused = None
        return examine(self.path)

    def _check(self) -> None:
        """Have SQLite check the whole file, unless it did and nothing has changed."""
        before = self.path.stat()
        if self._checked is not None and _same(self._checked, before):
            return
        try:
            with contextlib.closing(connect(self.path, "ro")) as db:
                self._limit(db)
                check(db)
        except AccountsFailed as failed:
            self._refused = before, failed
            raise
        self._checked = before

    def _failed(self, error: sqlite3.Error) -> AccountsFailed:
        name = _name(error)
        if name == "SQLITE_IOERR" and _is_full(self.path.parent):
            # So SQLite calls it when what it could not write lies beside the database.
            name = "SQLITE_FULL"
        return AccountsFailed(f"can't be written: {error}", _CURES.get(name, _MOVE_AWAY))

    def _limit(self, db: sqlite3.Connection) -> None:
        """Have statements given up after the deadline."""
        db.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)


def examine(path: Path) -> int:
    """Return the size of the file at `path`, 0 if there is none, without opening it as a database.

    Raises AccountsFailed if it can't be read, is no accounts file, or one of a later program.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _unreadable(error) from error
    try:
        header = os.read(descriptor, _HEADER_LENGTH)
        size = os.fstat(descriptor).st_size
    except OSError as error:
        raise _unreadable(error) from error
    finally:
        os.close(descriptor)
    if not header:
        return 0
    if len(header) < _HEADER_LENGTH or not header.startswith(_MAGIC):
        raise AccountsFailed("is no accounts file", _MOVE_AWAY)
    version, application = _VERSIONS.unpack(header)
    if application != database.APPLICATION_ID:
        raise AccountsFailed("is a database of another program", _MOVE_AWAY)
    if version > database.VERSION:
        raise AccountsFailed(
            f"is of a later derper (version {version})", f"install that one, or {_MOVE_AWAY}"
        )
    return size


def check(db: sqlite3.Connection) -> None:
    """Raise AccountsFailed if the database is not whole; sqlite3.Error if it can't be read."""
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise AccountsFailed(f"is corrupt ({found.splitlines()[-1]})", _MOVE_AWAY)
    db.execute("SELECT sum(sent) FROM counts WHERE period = ''").fetchone()


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open the database at `path`, read-only ("ro") or for writing ("rw")."""
    if mode == "ro" and not path.with_name(f"{path.name}-wal").exists():
        # Nobody has it open: read it without making files beside it.
        mode = "ro&immutable=1"
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=LOCK_TIMEOUT,
        check_same_thread=False,
    )


def _same(before: os.stat_result, now: os.stat_result) -> bool:
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return all(getattr(before, name) == getattr(now, name) for name in names)


def _is_full(directory: Path) -> bool:
    """Whether the directory's file system has no block left for the relay's user."""
    try:
        return os.statvfs(directory).f_bavail == 0
    except OSError:
        return False


def _name(error: sqlite3.Error) -> str:
    """Return the name of SQLite's primary result code."""
    name = str(getattr(error, "sqlite_errorname", ""))
    return "_".join(name.split("_")[:2])


def _unreadable(error: OSError) -> AccountsFailed:
    cure = "let the relay's user read and write it"
    if error.errno in (errno.EISDIR, errno.EINVAL, errno.ENXIO):
        cure = "name a regular file with -accounts"
    return AccountsFailed(f"can't be read: {error.strerror}", cure)
