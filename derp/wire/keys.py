"""Node keys: the Curve25519 keys that name every client, and the relay itself.

The text form of a key is its kind (`nodekey:` or `privkey:`) and 64 hex digits, as in the key file,
admission requests and tailscaled. Logs use a short form that is not parsed: "[AbCdE]".

Public keys are dictionary keys and slices of frames on the packet path, so they are plain `bytes`,
32 long. The private key is a class whose value no repr, log line or traceback shows.

Matches Go's types/key (NodePublic, NodePrivate).
"""

import base64
import re

import attrs
from nacl.bindings import crypto_scalarmult_base
from nacl.utils import random

from derp.wire.frames import KEY_LENGTH

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_PUBLIC_PREFIX = "nodekey:"
_PRIVATE_PREFIX = "privkey:"


class KeyFormatError(ValueError):
    """The text or bytes are no key. The message never quotes them."""


def short_key(key: bytes) -> str:
    """Return the form for logs: "[", the first five base64 digits of `key`, "]".

    Empty for the all-zero key, which nobody owns. Matches NodePublic.ShortString.
    """
    if not any(key):
        return ""
    return f"[{base64.b64encode(key[:4])[:5].decode('ascii')}]"


def node_public_text(key: bytes) -> str:
    """Return `nodekey:` and 64 lower-case hex digits. Matches NodePublic.MarshalText."""
    return f"{_PUBLIC_PREFIX}{key.hex()}"


def parse_node_public(text: str) -> bytes:
    """Parse `nodekey:` and 64 hex digits of either case. Raises KeyFormatError."""
    return _parse_hex(text, _PUBLIC_PREFIX)


@attrs.frozen(eq=False, repr=False)
class NodePrivate:
    """A private node key and its public key.

    `str`, `repr` and `format` show the short form of the public key. Instances are compared by
    identity, so that no comparison takes time that depends on the key.
    """

    raw: bytes
    """The 32 bytes as generated or read. Secret."""
    public: bytes = attrs.field(init=False)
    """The public key, 32 bytes."""

    def __attrs_post_init__(self) -> None:
        """Derive the public key. Raises KeyFormatError unless `raw` is 32 bytes, not all zero."""
        if len(self.raw) != KEY_LENGTH:
            raise KeyFormatError(f"a private key is {KEY_LENGTH} bytes, not {len(self.raw)}")
        if not any(self.raw):
            raise KeyFormatError("the all-zero key is no private key")
        object.__setattr__(self, "public", crypto_scalarmult_base(self.raw))

    @classmethod
    def generate(cls, entropy: bytes | None = None) -> "NodePrivate":
        """Generate a key from 32 random bytes, or from `entropy`. Matches NewNode.

        The bytes are clamped (RFC 7748, section 5), as NaCl boxes want it.
        """
        raw = bytearray(random(KEY_LENGTH) if entropy is None else entropy)
        if len(raw) != KEY_LENGTH:
            raise KeyFormatError(f"a private key is made of {KEY_LENGTH} bytes, not {len(raw)}")
        raw[0] &= 0b11111000
        raw[31] = raw[31] & 0b01111111 | 0b01000000
        return cls(bytes(raw))

    @classmethod
    def parse(cls, text: str) -> "NodePrivate":
        """Parse `privkey:` and 64 hex digits of either case. Raises KeyFormatError."""
        return cls(_parse_hex(text, _PRIVATE_PREFIX))

    def secret_text(self) -> str:
        """Return `privkey:` and 64 lower-case hex digits. Matches NodePrivate.MarshalText."""
        return f"{_PRIVATE_PREFIX}{self.raw.hex()}"

    def __repr__(self) -> str:
        return f"<NodePrivate of {short_key(self.public)}>"


def _parse_hex(text: str, prefix: str) -> bytes:
    if not text.startswith(prefix):
        raise KeyFormatError(f"the key does not begin with {prefix}")
    digits = text[len(prefix) :]
    if len(digits) != 2 * KEY_LENGTH:
        raise KeyFormatError(f"the key has {len(digits)} hex digits instead of {2 * KEY_LENGTH}")
    if not _HEX.fullmatch(digits):
        raise KeyFormatError("the key holds something else than hex digits")
    return bytes.fromhex(digits)
