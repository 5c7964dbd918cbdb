"""A list of devices on disk, which is used while the API is away, also after a restart.

    # derper devices 1 of tailnet:example.com, listed at 1790000000
    nodekey:0123…cdef 1795000000        # when it expires, in Unix time
    nodekey:4567…89ab never

Only the file of the same list, narrowed by the same tags, is read. It is written a line at a time,
so that the event loop goes on in between.
"""

import math
import re
from pathlib import Path
from typing import Final

import attrs

from certs.files import open_regular
from certs.wholefile import write_whole
from derp.devices.model import Devices
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public

MAX_SIZE: Final = 16 << 20
"""Bytes of the largest file that is read."""

_HEADER: Final = re.compile(r"# derper devices 1 of (\S+), listed at ([0-9]{1,12})")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.@_-]")
_NEVER: Final = "never"


class KeptFormError(ValueError):
    """A file holds something else than the list; the message quotes nothing of it."""


@attrs.frozen
class KeptList:
    """The file of one list."""

    path: Path
    title: str
    """The name of its source, and what narrows it; without spaces."""

    @classmethod
    def of(cls, directory: Path, name: str, tags: frozenset[str]) -> "KeptList":
        """Return the file in a directory for the list of a source."""
        title = f"{name}?{','.join(sorted(tags))}" if tags else name
        return cls(directory / f"devices-{_UNSAFE.sub('_', name)}", title)

    def load(self, now: float) -> Devices | None:
        """Return the list as at Unix time `now`; None without a file. Blocks.

        Raises OSError and KeptFormError.
        """
        try:
            with open_regular(self.path) as stream:
                data = stream.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        if len(data) > MAX_SIZE:
            raise KeptFormError("it is too large")
        return decode(data.decode("ascii", "replace"), self.title, now)

    def save(self, devices: Devices) -> None:
        """Write the list, whole or not at all, with mode 0600. Blocks. Raises OSError."""
        write_whole(self.path, encode(devices, self.title).encode("ascii"), mode=0o600)


def decode(text: str, title: str, now: float) -> Devices:
    """Return the list in a file with this title. Raises KeptFormError."""
    first, *lines = text.split("\n")
    header = _HEADER.fullmatch(first)
    if header is None:
        raise KeptFormError("it was not written by derper, or by another version")
    if header[1] != title:
        raise KeptFormError("it is another list, or narrowed by other tags")
    if lines[-1:] != [""]:
        raise KeptFormError("it is cut off")
    expiries = {}
    for line in lines[:-1]:
        key, _, when = line.partition(" ")
        try:
            expires = math.inf if when == _NEVER else float(int(when))
            expiries[parse_node_public(key)] = expires
        except (KeyFormatError, ValueError, OverflowError):
            raise KeptFormError("a line of it is no device") from None
    # A clock that went back must not make the list count for longer.
    return Devices(expiries, min(float(header[2]), now))


def encode(devices: Devices, title: str) -> str:
    """Return the text of a file with this title."""
    lines = [f"# derper devices 1 of {title}, listed at {max(0, int(devices.listed_at))}"]
    for key, expires in devices.expiries.items():
        if expires > 0:
            when = _NEVER if math.isinf(expires) else str(int(expires))
            lines.append(f"{node_public_text(key)} {when}")
    return "\n".join([*lines, ""])
