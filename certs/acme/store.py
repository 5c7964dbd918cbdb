"""The certificates in -certdir, one file for each, and the lock under which they are renewed.

A file is what Go's autocert makes of one and can read: the private key ("EC PRIVATE KEY"), then
the chain, leaf first. The line of text before the key, which PEM readers skip, says where the
certificate is from.

    ACME directory: https://acme-v02.api.letsencrypt.org/directory
    -----BEGIN EC PRIVATE KEY-----

An operator may have put a link in place of the file: it stays, and the file that it leads to is
replaced. (autocert replaces the link, and what is on the volume that it led to grows old.)
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

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.errors import CertificateError, Failure, IssueError
from certs.files import PairFiles, open_regular, read_pair, write_whole
from certs.hostname import file_stem, parse_ip
from certs.pair import Pair

LOCK_NAME: Final = ".acme.lock"

_ISSUER: Final = b"ACME directory: "
_PROBE_SIZE: Final = 16384
"""Bytes that must fit: an account key and a certificate, twice while they are replaced."""
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


def plain_name(name: str) -> str:
    """Return a DNS name or an IP address as it is ordered: in lower case, without a final dot."""
    address = parse_ip(name)
    return name.lower().removesuffix(".") if address is None else str(address)


def certificate_file(certdir: Path, name: str) -> Path:
    """Return the file for a certificate whose first name is this DNS name or IP address.

    It is the name; an IPv6 address has dots for its colons.
    """
    return certdir / file_stem(plain_name(name).replace(":", "."))


def issued_by(file: Path) -> str | None:
    """Return the URL of the directory that the certificate in `file` is from, if it says so."""
    try:
        with open_regular(file) as stream:
            line = stream.readline(4096)
    except OSError:
        return None
    if not (line.startswith(_ISSUER) and line.endswith(b"\n")):
        return None
    return line.removeprefix(_ISSUER).decode(errors="replace").rstrip("\r\n")


def read_usable(certdir: Path, names: Sequence[str], now: datetime) -> Pair | None:
    """Return the pair in the file for `names`, where it is for all of them and not expired."""
    file = certificate_file(certdir, names[0])
    try:
        pair = read_pair(PairFiles(file, file), names, now)
    except CertificateError:
        return None
    return None if now > pair.not_after else pair


def write_certificate(
    file: Path, directory: str, key: ec.EllipticCurvePrivateKey, chain_der: Sequence[bytes]
) -> None:
    """Put a new certificate in place, whole. Raises IssueError (Failure.SPENT)."""
    file = _real(file)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    issuer = _ISSUER + directory.encode() + b"\n"
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
    """Make sure that a certificate can be put into `file`, be it there already or not.

    Its directory is made, for us alone, if absent. Raises IssueError.
    """
    with _probing(file.parent):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _real(file)
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
            f"{file}: can't be looked at ({error.strerror}), so no certificate is ordered for it; "
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
    """Return which mount `path` is on, as Linux counts them; None where that is not known.

    os.path.ismount goes by the device: it does not see a file of the same file system mounted
    over another, and with overlayfs it may see a mount point in any file.
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


def _real(file: Path) -> Path:
    """Return the path without links."""
    return Path(os.path.realpath(file))


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
    """Keep others, in this process or not, from ordering for the same directory.

    Raises IssueError with Failure.BUSY where one of them is at it. File systems without locks
    get none.
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
