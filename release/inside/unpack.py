"""Unpack the relay, once, and become it.

Compiled modules can't be loaded from within an archive. So all that this machine needs is unpacked
into a folder of the user's cache, named after the hash of its content, and run from there. Only its
user can change that folder, and it is never seen half done: it gets its name when it is complete.
What this machine lacks is told in one line, with exit code 1.
"""

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

INDEX: Final = "bundles.json"
"""What the archive has: {"pythons": ["3.11"], "bundles": {"x86_64": {"digest": "…",
"glibc": [2, 17], "folders": ["common", "x86_64"]}}}."""

NEEDED: Final = {"zlib": "zlib", "_ssl": "OpenSSL", "_ctypes": "libffi", "_sqlite3": "SQLite"}
"""Modules of the standard library that a Python may have been built without, and for what."""

_PIP: Final = "the README's section on pip says how to install it otherwise"
CACHE: Final = "DERPER_PYZ_CACHE"
"""A variable, for where else to unpack. XDG_CACHE_HOME says, too, where certificates are kept."""

_ELSEWHERE: Final = f"set {CACHE} to the path of another directory to unpack into"
_OLD: Final = 86400.0
"""Seconds after which an unfinished folder belongs to a process that was killed."""


class LackError(Exception):
    """This machine lacks something; says what, and what to do."""


class Here:
    """This machine and its Python, as far as they matter."""

    def __init__(self) -> None:
        self.implementation = sys.implementation.name
        self.version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        self.free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
        self.system = sys.platform
        self.machine = os.uname().machine
        self.is_64_bit = sys.maxsize > 2**32
        self.libc = _libc()
        self.missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def _libc() -> str:
    """Return `glibc 2.36`, for example; empty for another C library."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return ""


def choose(index: Mapping[str, Any], here: Any) -> Mapping[str, Any]:
    """Return the index's entry for the machine. Raises LackError."""
    pythons: Sequence[str] = index["pythons"]
    if here.implementation != "cpython" or here.free_threaded:
        what = "a free-threaded Python" if here.free_threaded else here.implementation
        have = "the packages here are for CPython"
        raise LackError(f"{sys.executable} is {what}, and {have}; {_PIP}")
    if here.version not in pythons:
        versions = f"{pythons[0]} to {pythons[-1]}"
        raise LackError(f"{sys.executable} is Python {here.version}; start this with {versions}")
    if here.system != "linux":
        raise LackError(f"{here.system}: the packages here are for Linux; {_PIP}")
    bundle: Mapping[str, Any] | None = index["bundles"].get(here.machine)
    if bundle is None or not here.is_64_bit:
        bits = "" if here.is_64_bit else " with a 32-bit Python"
        have = " and ".join(index["bundles"])
        raise LackError(f"{here.machine}{bits}: the packages here are for {have}; {_PIP}")
    oldest = tuple(bundle["glibc"])
    want = f"the packages here are for glibc {oldest[0]}.{oldest[1]} or later; {_PIP}"
    found = re.match(r"glibc (\d+)\.(\d+)", here.libc)
    if found is None:
        raise LackError(f"the C library is not glibc, but musl or another one; {want}")
    if (int(found[1]), int(found[2])) < oldest:
        raise LackError(f"the C library is {here.libc}; {want}")
    if here.missing:
        without = ", ".join(NEEDED[name] for name in here.missing)
        raise LackError(f"{sys.executable} was built without {without}; start this with another")
    return bundle


def cache_home(environ: Mapping[str, str]) -> Path:
    """Return the directory of $DERPER_PYZ_CACHE, or else the user's cache. Raises LackError."""
    if given := environ.get(CACHE, ""):
        if not os.path.isabs(given):
            raise LackError(f"{CACHE}={given}: want an absolute path")
        return Path(given)
    given = environ.get("XDG_CACHE_HOME", "")
    home = given if os.path.isabs(given) else os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        raise LackError(f"there is no home directory to unpack into; {_ELSEWHERE}")
    return Path(home)


def private(home: Path) -> Path:
    """Return the folder `derper-pyz` in the cache, made where it is missing.

    Raises LackError unless it is a directory of this user's with mode 0700, in one where nobody
    else can give its name to another; and OSError.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    above = home.stat()
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise LackError(f"{home}: every user can replace what is in there; {_ELSEWHERE}")
    folder = home / "derper-pyz"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise LackError(f"{folder}: not a directory; remove it, or {_ELSEWHERE}")
    if status.st_uid != os.geteuid():
        users = f"belongs to the user {status.st_uid}, and this is {os.geteuid()}"
        raise LackError(f"{folder}: {users}; {_ELSEWHERE}")
    if status.st_mode & 0o077:
        mode = f"{status.st_mode & 0o7777:04o}"
        raise LackError(f"{folder}: others can use it (mode {mode}); remove it, or chmod 700")
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise LackError(f"{folder}: is mounted noexec; {_ELSEWHERE}")
    return folder


def unpacked(archive: zipfile.ZipFile, bundle: Mapping[str, Any], folder: Path) -> Path:
    """Return where the bundle is below `folder`, after unpacking it unless it is there.

    Raises OSError and zipfile.BadZipFile.
    """
    complete = folder / str(bundle["digest"])
    if complete.is_dir():
        return complete
    _remove_unfinished(folder)
    work = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    try:
        for entry in archive.infolist():
            top, _, name = entry.filename.partition("/")
            if top in bundle["folders"] and name:
                target = work / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
        # A loss of power must not leave the name without the content.
        os.sync()
        try:
            work.rename(complete)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            # Another process was quicker.
            shutil.rmtree(work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return complete


def _remove_unfinished(folder: Path) -> None:
    for left in folder.glob("new-*"):
        with contextlib.suppress(OSError):
            if left.lstat().st_mtime < time.time() - _OLD:
                shutil.rmtree(left)


def run(path: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Unpack the archive at `path` and become the relay. Raises LackError, OSError, BadZipFile."""
    here = Here()
    with zipfile.ZipFile(path) as archive:
        bundle = choose(json.loads(archive.read(INDEX)), here)
        folder = private(cache_home(environ))
        try:
            place = unpacked(archive, bundle, folder)
        except OSError as error:
            raise LackError(f"{folder}: {error.strerror}; make room, or {_ELSEWHERE}") from error
    # In a new process image nothing of this one stays, and the relay is a script like others.
    os.execv(sys.executable, [sys.executable, str(place / "derper"), *arguments])


def main() -> NoReturn:
    """Run; what goes wrong is one line."""
    path = os.path.dirname(os.path.abspath(__file__))
    try:
        run(path, sys.argv[1:], os.environ)
    except LackError as error:
        told = str(error)
    except OSError as error:
        told = f"{error.filename or path}: {error.strerror}; {_ELSEWHERE}"
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        told = f"{path}: damaged ({error}); fetch it again, and compare it with SHA256SUMS"
    sys.stderr.write(f"derper.pyz: {told}\n")
    sys.exit(1)
