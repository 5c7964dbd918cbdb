"""The ACME account key, one for all certificates of a -certdir.

Its file is that of Go's autocert, `acme_account+key`: PEM "EC PRIVATE KEY", P-256.
"""

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.acme.store import ACCOUNT_FILE
from certs.errors import IssueError
from certs.files import open_regular
from certs.wholefile import write_whole

_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH


def account_key(certdir: Path) -> ec.EllipticCurvePrivateKey:
    """Return the account key in `certdir`; make one if there is none.

    Raises IssueError for a key that is damaged, of another kind, or open to every user. Such a key
    is not replaced: a new key is a new account, which is the operator's decision.
    """
    file = certdir / ACCOUNT_FILE
    try:
        with open_regular(file) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            pem = stream.read()
    except FileNotFoundError:
        return _make(file)
    except OSError as error:
        raise IssueError(
            f"{file}: the account key can't be read ({error.strerror}); "
            f"make it a file that the relay can read, or remove it to register anew"
        ) from error
    if mode & _OTHERS:
        raise IssueError(
            f"{file}: every user can read or change the account key "
            f"(mode {stat.S_IMODE(mode):04o}); run: chmod 600 {file}"
        )
    return _parse(pem, file)


def _parse(pem: bytes, file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Dropping the cause: nothing about a key's contents belongs in a traceback.
        raise IssueError(
            f"{file}: damaged account key, or none in PEM without a passphrase; "
            f"restore it from a backup, or remove it to register anew"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise IssueError(
            f"{file}: the account key is not an ECDSA key on P-256; "
            f"put such a key there, or remove it to register anew"
        )
    return key


def _make(file: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    try:
        write_whole(file, pem, mode=0o600)
    except OSError as error:
        raise IssueError(
            f"{file}: can't write the new account key ({error.strerror}); "
            f"make {file.parent} a directory that the relay can write to"
        ) from error
    return key
