"""The mesh key: the secret by which the relays of a region trust each other.

A file holds it in 64 hex digits of either case, with or without white space around them. In
development mode the variable TAILSCALE_DERPER_MESH_KEY may hold it instead. Matches cmd/derper, and
ParseDERPMesh of Go's types/key.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from derp import log
from derp.config import Config
from derp.config.mesh import KeyFile
from derp.errors import StartError, UsageError
from derp.files.secret import read_secret
from derp.net.oserrors import plain_reason

VARIABLE: Final = "TAILSCALE_DERPER_MESH_KEY"

_DEFAULT: Final = "/home/derp/keys/derp-mesh.key"
_DEFAULT_AT_HOME: Final = "keys/derp-mesh.key"
_DIGITS: Final = re.compile(r"[0-9A-Fa-f]{64}")
_MAX_SIZE: Final = 4096
_WANT: Final = "want 64 hex digits, as openssl rand -hex 32 prints them, the same for all relays"

logger = log.get("mesh")


class MeshKeyFormatError(ValueError):
    """A text is not a mesh key. The message never repeats it."""


def parse(text: str) -> bytes:
    """Parse 64 hex digits with white space around them; 32 bytes. Raises MeshKeyFormatError.

    The all-zero key is not valid: in Go it stands for no mesh key.
    """
    digits = text.strip()
    if not digits:
        raise MeshKeyFormatError("empty")
    if not _DIGITS.fullmatch(digits):
        raise MeshKeyFormatError("not a mesh key")
    if not digits.strip("0"):
        raise MeshKeyFormatError("nothing but zeros is not a mesh key")
    return bytes.fromhex(digits)


def load(config: Config, environ: Mapping[str, str]) -> bytes | None:
    """Return the mesh key, 32 bytes; None if there is none. Blocks.

    Raises StartError for a wrong file, UsageError for a wrong variable or -mesh-with without a key.
    """
    if not config.general.derp:
        return None
    key = _from_variable(environ) if config.general.dev else None
    path = _path(config, environ)
    if key is None and path is not None:
        key = _from_file(path)
        logger.info("mesh key read", path=str(path))
    if key is None and config.mesh.relays:
        listed = ",".join(map(str, config.mesh.relays))
        or_variable = f" or {VARIABLE}" if config.general.dev else ""
        raise UsageError(f"-mesh-with {listed}: want the mesh key in -mesh-psk-file{or_variable}")
    return key


def _from_variable(environ: Mapping[str, str]) -> bytes | None:
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        return parse(text)
    except MeshKeyFormatError as error:
        raise UsageError(f"{VARIABLE}: {error}; {_WANT}") from None


def _path(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Return the path of the flag, or of the first default file that exists.

    In development mode there is no default, as in Go (defaultMeshPSKFile).
    """
    if config.mesh.key_file is not KeyFile.AUTO:
        return config.mesh.key_file
    if config.general.dev:
        return None
    home = environ.get("HOME", "")
    defaults = [Path(_DEFAULT), *([Path(home, _DEFAULT_AT_HOME)] if home else [])]
    # Path.exists raises an error for a directory that this user may not search.
    return next((path for path in defaults if os.path.exists(path)), None)  # noqa: PTH110


def _from_file(path: Path) -> bytes:
    name = f"-mesh-psk-file {str(path)!r}"
    try:
        data, mode = read_secret(path, name, _MAX_SIZE)
    except (OSError, ValueError) as error:
        reason = plain_reason(error)
        raise StartError(f"{name}: can't be read ({reason}); want a file with the key") from error
    if len(data) > _MAX_SIZE:
        raise StartError(f"{name}: too large for a mesh key; {_WANT}")
    try:
        key = parse(data.decode("utf-8", "replace"))
    except MeshKeyFormatError as error:
        raise StartError(f"{name}: {error}; {_WANT}") from None
    if mode & stat.S_IRWXO:
        logger.warning(
            "others can use the file of the mesh key",
            path=str(path),
            mode=f"{stat.S_IMODE(mode):04o}",
            cure="run chmod 600 on it",
        )
    return key
