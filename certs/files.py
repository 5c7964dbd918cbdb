"""A pair in two files of -certdir: `<hostname>.crt`, the chain, and `<hostname>.key`."""

import os
import stat
from datetime import datetime
from pathlib import Path

import attrs

from certs.errors import CertificateFileError, WrongHostnameError
from certs.hostname import file_stem, is_covered
from certs.pair import Pair, make_pair

_OTHERS = stat.S_IROTH | stat.S_IWOTH


def pair_files(certdir: Path, hostname: str) -> tuple[Path, Path]:
    """Return the paths of the certificate and of the key for `hostname`, as Go names them."""
    stem = file_stem(hostname)
    return certdir / f"{stem}.crt", certdir / f"{stem}.key"


def read_pair(certdir: Path, hostname: str, now: datetime) -> Pair:
    """Read and check the pair for `hostname`.

    A pair outside its dates is served all the same, with a warning, as Go does: the clock of a
    machine that has just started may be wrong, and a relay helps the clients that don't look.
    Raises CertificateFileError, UnusablePairError or WrongHostnameError.
    """
    certificate_file, key_file = pair_files(certdir, hostname)
    chain_pem = _read(certificate_file, f"the certificate of {hostname!r}, in PEM")
    key_pem = _read(key_file, f"the private key of {hostname!r}, in PEM", secret=True)
    pair = make_pair(chain_pem, key_pem, chain_from=str(certificate_file), key_from=str(key_file))
    if not is_covered(hostname, pair.dns_names, pair.ip_addresses):
        listed = ", ".join(map(repr, pair.names)) or "no subject alternative name at all"
        raise WrongHostnameError(
            f"{certificate_file}: the certificate is not for -hostname {hostname!r} "
            f"but for {listed}; change the flag or have a certificate issued for that name"
        )
    warning = _date_warning(pair, certificate_file, now)
    return attrs.evolve(pair, warnings=(warning,)) if warning else pair


def _read(file: Path, content: str, *, secret: bool = False) -> bytes:
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if secret and mode & _OTHERS:
                raise CertificateFileError(
                    f"{file}: every user can read or change this private key "
                    f"(mode {stat.S_IMODE(mode):04o}); run: chmod 600 {file}"
                )
            return stream.read()
    except FileNotFoundError as error:
        raise CertificateFileError(
            f"{file}: no such file; put {content}, there, or point -certdir elsewhere"
        ) from error
    except OSError as error:
        raise CertificateFileError(
            f"{file}: can't be read ({error.strerror}); "
            f"make it a file that the relay can read, with {content}"
        ) from error


def _date_warning(pair: Pair, file: Path, now: datetime) -> str | None:
    if now > pair.not_after:
        return (
            f"{file}: the certificate expired on {pair.not_after:%Y-%m-%d %H:%M} UTC, "
            f"so clients refuse it; {_renewal(pair)}"
        )
    if now < pair.not_before:
        return (
            f"{file}: the certificate is not valid before {pair.not_before:%Y-%m-%d %H:%M} UTC; "
            f"check this machine's clock"
        )
    return None


def _renewal(pair: Pair) -> str:
    if pair.self_signed and pair.ip_addresses:
        return "remove it and its key, start again, and put the new CertName in the DERP map"
    return "renew it"
