"""The key file: the private key of the relay, kept from one start to the next.

    {
        "PrivateKey": "privkey:<64 hex digits>"
    }

The format is the Go derper's, so that either program can take over from the other under the same
key, by which clients know the relay. The file is created at the first start and never changed: one
that can't be read or parsed is an error.
"""

import json
import stat
from pathlib import Path
from typing import Final

from certs.wholefile import write_whole
from derp import log
from derp.errors import StartError
from derp.files.secret import read_secret
from derp.wire.gojson import JSONFormError, read_fields
from derp.wire.keys import KeyFormatError, NodePrivate, short_key

logger = log.get("keyfile")

_FIELD: Final = "PrivateKey"
_MAX_SIZE: Final = 65536
_CURE: Final = "restore the file, or move it away to have a new key made"


def load_or_make(path: Path) -> NodePrivate:
    """Return the key in the file at `path`, which is created if it does not exist. Blocks.

    Missing directories are created with mode 0700, the file with 0600. Of several processes that
    create the file at the same time, one wins, and all return its key. Raises StartError.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    key = NodePrivate.generate()
    try:
        for directory in (*reversed(path.parent.parents), path.parent):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
        made = write_whole(path, encode(key), mode=0o600, replace=False)
    except OSError as error:
        raise StartError(f"key file {str(path)!r}: can't be made: {error.strerror}") from error
    if made:
        logger.info("made a new key", key=short_key(key.public), path=str(path))
        return key
    try:
        return _load(path)
    except FileNotFoundError as error:
        raise StartError(f"key file {str(path)!r}: a broken link; {_CURE}") from error


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
    """Read the key file. Raises FileNotFoundError, or StartError for any other failure."""
    name = f"key file {str(path)!r}"
    try:
        data, mode = read_secret(path, name, _MAX_SIZE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StartError(f"{name}: can't be read: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        others = f"others can use it (mode {stat.S_IMODE(mode):04o})"
        raise StartError(f"{name}: {others}; run chmod 600 on it, or mount it with that mode")
    if len(data) > _MAX_SIZE:
        raise StartError(f"{name}: too large for a key file; {_CURE}")
    try:
        return decode(data)
    except (JSONFormError, KeyFormatError) as error:
        raise StartError(f"{name}: {error}; {_CURE}") from None
