"""The groups of isolated clients, as tags of a few bytes. Sans-I/O.

A group has the name of the source that admits its clients, or the one that the policy gives it. Its
tag is the same in all workers and relays, which tell it each other of each key (derp.wire.frames).
"""

import hashlib
from typing import Final

TAG_LENGTH: Final = 8
NO_GROUP: Final = b""
"""In place of a tag: of a client that no group separates from others, and of a key whose group is
not known."""


def tag_of(group: str) -> bytes:
    """Return the tag of a group; two groups have the same one by a chance of 1 in 2^64."""
    return hashlib.blake2b(group.encode(), digest_size=TAG_LENGTH).digest()
