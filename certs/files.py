"""The files of a pair: chain and key, in two files or in one.

In -certdir they are `<hostname>.crt` and `<hostname>.key`, or with ACME one file, as in Go's
autocert; -tls-cert and -tls-key name others.
"""

import errno
import os
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import attrs

from certs.errors import CertificateFileError, WrongHostnameError
from certs.hostname import file_stem
from certs.ownership import swap_warning
from certs.pair import Pair

NOT_REGULAR: Final = (errno.EISDIR, errno.EINVAL)


@attrs.frozen
class PairFiles:
    """The paths of a pair, which may be the same."""

    certificate: Path
    key: Path
    flag: str = "-certdir"
    """The flag that sets the paths, for messages."""


def pair_files(certdir: Path, hostname: str) -> PairFiles:
    """Return the files for `hostname` in -certdir, named as by Go."""
    stem = file_stem(hostname)
    return PairFiles(certdir / f"{stem}.crt", certdir / f"{stem}.key")


def read_pair(files: PairFiles, names: Sequence[str], now: datetime, *, some: bool = False) -> Pair:
    """Read and check the pair for all of `names`, DNS names and IP addresses; or for `some`.

    A pair outside its dates has a warning only, as in Go: the clock of a machine that has just
    started may be wrong. So has a key that every user can read, or a file that others could swap; a
    key that every user can change is an error. Raises CertificateFileError, UnusablePairError or
    WrongHostnameError.
    """
    quoted = " and ".join(map(repr, names))
    chain_pem, _ = _read(files.certificate, f"the certificate of {quoted}, in PEM", files.flag)
    key_pem, mode = _read(files.key, f"the private key of {quoted}, in PEM", files.flag)
    if mode & stat.S_IWOTH:
        raise CertificateFileError(
            f"{files.key}: every user can change this private key "
            f"(mode {stat.S_IMODE(mode):04o}); run: chmod 600 {files.key}"
        )
    sources = {"chain_from": str(files.certificate), "key_from": str(files.key)}
    from certs.parse import make_pair  # noqa: PLC0415 - loads cryptography

    pair = make_pair(chain_pem, key_pem, **sources)
    missing = [name for name in names if not pair.covers(name)]
    if missing and not (some and len(missing) < len(names)):
        listed = ", ".join(map(repr, pair.names)) or "no subject alternative name at all"
        raise WrongHostnameError(
            f"{files.certificate}: the certificate is not for -hostname {missing[0]!r} "
            f"but for {listed}; change the flag or have a certificate issued for that name"
        )
    found = (
        _date_warning(pair, files.certificate, now),
        _mode_warning(files.key, mode),
    )
    swappable = map(swap_warning, dict.fromkeys((files.certificate, files.key)))
    return attrs.evolve(
        pair, warnings=tuple(filter(None, found)), swap_warnings=tuple(filter(None, swappable))
    )


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting for a pipe's writer.

    Raises OSError, for other kinds of file with an errno in NOT_REGULAR.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "Not a regular file")
    return os.fdopen(descriptor, "rb")


def exists(file: Path) -> bool:
    """Return whether a file or a broken link is there. Raises CertificateFileError if unknown."""
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CertificateFileError(
            f"{file}: can't be examined ({error.strerror}); "
            f"point -certdir at a directory that the relay can enter"
        ) from error
    return True


def _read(file: Path, content: str, flag: str) -> tuple[bytes, int]:
    """Return a file's content and its mode; `content` describes what is expected, for messages."""
    try:
        with open_regular(file) as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode
    except FileNotFoundError as error:
        raise CertificateFileError(
            f"{file}: no such file; put {content}, there, or point {flag} elsewhere"
        ) from error
    except OSError as error:
        raise CertificateFileError(
            f"{file}: can't be read ({error.strerror}); "
            f"make it a file that the relay can read, with {content}"
        ) from error


def _mode_warning(key: Path, mode: int) -> str | None:
    if not mode & stat.S_IROTH:
        return None
    shown = f"{stat.S_IMODE(mode):04o}"
    return f"{key}: every user can read this private key (mode {shown}); run: chmod 600 {key}"


def _date_warning(pair: Pair, file: Path, now: datetime) -> str | None:
    if now > pair.not_after:
        return (
            f"{file}: the certificate expired on {pair.not_after:%Y-%m-%d %H:%M} UTC, "
            f"so clients refuse it; renew it"
        )
    if now < pair.not_before:
        return (
            f"{file}: the certificate is not valid before {pair.not_before:%Y-%m-%d %H:%M} UTC; "
            f"check this machine's clock"
        )
    return None
