"""The files of certificates in -certdir, and the lock for orders.

The format is that of Go's autocert: the private key ("EC PRIVATE KEY"), then the chain, leaf first.
A line before the key, which PEM readers skip, has the authority's directory URL.

    ACME directory: https://acme-v02.api.letsencrypt.org/directory
    -----BEGIN EC PRIVATE KEY-----

If the file is a symbolic link, the link stays and its target is replaced. (autocert replaces the
link, and the target goes stale.)
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from ssl import DER_cert_to_PEM_cert
from typing import Final

from certs.errors import CertificateError, Failure, IssueError
from certs.files import PairFiles, open_regular, read_pair
from certs.hostname import file_stem, parse_ip
from certs.pair import Pair
from certs.wholefile import write_whole

ACCOUNT_FILE: Final = "acme_account+key"
LOCK_NAME: Final = ".acme.lock"

_DIRECTORY_PREFIX: Final = b"ACME directory: "
_PROBE_SIZE: Final = 16384
"""Bytes for an account key and a certificate, each with its successor."""
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


def plain_name(name: str) -> str:
    """Return a DNS name in lower case without a final dot, or an IP address in canonical form."""
    address = parse_ip(name)
    return name.lower().removesuffix(".") if address is None else str(address)


def certificate_file(certdir: Path, name: str) -> Path:
    """Return the file for `name`, in which an IPv6 address has dots in place of colons."""
    return certdir / file_stem(plain_name(name).replace(":", "."))


def issued_by(file: Path) -> str | None:
    """Return the ACME directory URL in `file`, or None."""
    try:
        with open_regular(file) as stream:
            line = stream.readline(4096)
    except OSError:
        return None
    if not (line.startswith(_DIRECTORY_PREFIX) and line.endswith(b"\n")):
        return None
    return line.removeprefix(_DIRECTORY_PREFIX).decode(errors="replace").rstrip("\r\n")


def read_usable(certdir: Path, names: Sequence[str], now: datetime) -> Pair | None:
    """Return the stored pair for `names`; None if it does not cover them all or has expired."""
    file = certificate_file(certdir, names[0])
    try:
        pair = read_pair(PairFiles(file, file), names, now)
    except CertificateError:
        return None
    return None if now > pair.not_after else pair


def write_certificate(
    file: Path, directory: str, key_pem: bytes, chain_der: Sequence[bytes]
) -> None:
    """Write a new certificate and its key to one file. Raises IssueError (Failure.SPENT)."""
    file = Path(os.path.realpath(file))
    issuer = _DIRECTORY_PREFIX + directory.encode() + b"\n"
    chain_pem = "".join(map(DER_cert_to_PEM_cert, chain_der)).encode("ascii")
    try:
        write_whole(file, issuer + key_pem + chain_pem, mode=0o600)
    except OSError as error:
        raise IssueError(
            f"{file}: can't store the certificate just issued ({error.strerror}); "
            f"{_cure(error, file.parent)}",
            Failure.SPENT,
        ) from error


def probe(file: Path) -> None:
    """Check that a certificate can be written to `file`, which may exist. Raises IssueError.

    Its directory is made (0700) if absent.
    """
    with _probing(file.parent):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = Path(os.path.realpath(file))
    with (
        _probing(file.parent),
        tempfile.NamedTemporaryFile(dir=file.parent, prefix=".acme.probe.") as stream,
    ):
        stream.write(bytes(_PROBE_SIZE))
        stream.flush()
        os.fsync(stream.fileno())
    _probe_replaceable(file)


@contextlib.contextmanager
def _probing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IssueError(
            f"{directory}: can't store certificates there ({error.strerror}), "
            f"so none is ordered; {_cure(error, directory)}"
        ) from error


def _probe_replaceable(file: Path) -> None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        long = error.errno == errno.ENAMETOOLONG
        cure = "a file system that takes such names" if long else "another directory"
        raise IssueError(
            f"{file}: can't be examined ({error.strerror}), so no certificate is ordered for it; "
            f"point -certdir at {cure}"
        ) from error
    if not stat.S_ISREG(mode):
        raise IssueError(
            f"{file}: not a regular file, so no certificate is ordered for it; "
            f"move it away, or point -certdir elsewhere"
        )
    mounts = {_mount(file), _mount(file.parent)}
    if len(mounts - {None}) > 1:
        raise IssueError(
            f"{file}: a mount point, which can't be replaced, so no certificate is ordered for "
            f"it; mount {file.parent} instead of the file"
        )


def _mount(path: Path) -> str | None:
    """Return the line with the mount ID of `path`, None if unknown.

    os.path.ismount compares devices: it misses a file mounted over another of the same file system,
    and with overlayfs may take any file for a mount point.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            text = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return next((line for line in text.splitlines() if line.startswith("mnt_id:")), None)


def _cure(error: OSError, certdir: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space, or point -certdir at another file system"
        case errno.EROFS:
            return "mount it writable, or point -certdir elsewhere"
        case errno.EACCES | errno.EPERM:
            return f"give {certdir} to the user that the relay runs as (user ID {os.geteuid()})"
        case _:
            return "point -certdir at a directory that the relay can write to"


@contextlib.contextmanager
def locked(certdir: Path) -> Iterator[None]:
    """Hold the lock for orders in `certdir`, if its file system has locks.

    Raises IssueError, with Failure.BUSY if another task or process holds it.
    """
    file = certdir / LOCK_NAME
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise IssueError(
            f"{file}: can't be opened ({error.strerror}); {_cure(error, certdir)}"
        ) from error
    try:
        _lock(descriptor, file)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise IssueError(f"another order is under way in {file.parent}", Failure.BUSY) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise IssueError(
                f"{file}: can't be locked ({error.strerror}); "
                f"point -certdir at a file system that can"
            ) from error
