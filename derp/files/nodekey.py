"""The key file: the private key of the relay, kept from one start to the next.

    {
        "PrivateKey": "privkey:<64 hex digits>"
    }

It has the Go derper's format, so that either program can take over from the other and clients,
which know the relay by its key, notice nothing. It is created at the first start and never changed
afterwards: a file that can't be read or parsed is an error, and is left as it is.
"""

import errno
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from derp import log
from derp.errors import StartError
from derp.files.secret import read_secret
from derp.wire.gojson import JSONFormError, read_fields
from derp.wire.keys import KeyFormatError, NodePrivate, short_key

logger = log.get("keyfile")

_FIELD: Final = "PrivateKey"
_MAX_SIZE: Final = 65536
_CURE: Final = "restore the file, or move it away to have a new key made"
_NO_HARD_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def load_or_make(path: Path) -> NodePrivate:
    """Return the key in the file at `path`, which is created if it does not exist. Blocks.

    Missing directories are created with mode 0700, the file with 0600. Of several processes that
    create the file at the same time one wins, and all return its key. Raises StartError.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    key = NodePrivate.generate()
    try:
        made = _make(path, encode(key))
    except OSError as error:
        raise StartError(f"key file {str(path)!r}: can't be made: {error.strerror}") from error
    if made:
        logger.info("made a new key", key=short_key(key.public), path=str(path))
        return key
    try:
        return _load(path)
    except FileNotFoundError as error:
        raise StartError(f"key file {str(path)!r}: a link to nowhere; {_CURE}") from error


def encode(key: NodePrivate) -> bytes:
    """Return the content of a key file, byte for byte as Go's json.MarshalIndent."""
    return json.dumps({_FIELD: key.secret_text()}, indent="\t").encode("ascii")


def decode(data: bytes) -> NodePrivate:
    """Read the content of a key file. Raises JSONFormError or KeyFormatError."""
    text = read_fields(data, (_FIELD,)).get(_FIELD)
    if text is None:
        raise JSONFormError(f"has no {_FIELD}")
    if not isinstance(text, str):
        raise JSONFormError(f"{_FIELD} is not a string")
    try:
        return NodePrivate.parse(text)
    except KeyFormatError as error:
        raise KeyFormatError(f"{_FIELD}: {error}") from None


def _load(path: Path) -> NodePrivate:
    """Read the file. Raises FileNotFoundError, and StartError for everything else."""
    name = f"key file {str(path)!r}"
    try:
        data, mode = read_secret(path, name, _MAX_SIZE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StartError(f"{name}: can't be read: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        others = f"others can use it (mode {stat.S_IMODE(mode):04o})"
        raise StartError(f"{name}: {others}; run chmod 600 on it, or mount it so")
    if len(data) > _MAX_SIZE:
        raise StartError(f"{name}: too large for a key file; {_CURE}")
    try:
        return decode(data)
    except (JSONFormError, KeyFormatError) as error:
        raise StartError(f"{name}: {error}; {_CURE}") from None


def _make(path: Path, data: bytes) -> bool:
    """Create the file with `data` in it, whole or not at all; return False if it exists."""
    for directory in (*reversed(path.parent.parents), path.parent):
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        made = _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory_descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory_descriptor)
    finally:
        os.close(directory_descriptor)
    return made


def _publish(temporary: Path, path: Path) -> bool:
    """Link the finished file to its name; return False if the name is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Some network file systems have no hard links. There, of two first starts at the same
        # instant both could win, which is better than not to start at all.
        if path.is_symlink() or path.exists():
            return False
        temporary.rename(path)
    return True
