"""The login: the client proves its key with a NaCl box of JSON, the server answers with another.

A ClientInfo payload is 32 bytes public key, 24 bytes nonce and a crypto_box from that key to the
server's; a ServerInfo payload is 24 bytes nonce and a crypto_box back. Both boxes share one
precomputed secret, so a login costs one X25519.

The server's half comes first. The client's half is for a relay that logs in at another one.
"""

import functools
import json
import re
from typing import Any, Final

import attrs
import nacl.exceptions
from nacl.public import Box, PrivateKey, PublicKey

from derp.errors import LoginRefused
from derp.wire import gojson
from derp.wire.frames import (
    HEADER,
    HEADER_LENGTH,
    KEY_LENGTH,
    MAGIC,
    MAX_CLIENT_INFO,
    NONCE_LENGTH,
    PROTOCOL_VERSION,
    FrameType,
    frame,
)

_MESH_KEY = re.compile(r"[0-9a-fA-F]{64}")


@attrs.frozen
class ClientInfo:
    """The information that a client sends about itself (Go: derp.ClientInfo)."""

    version: int = 0
    can_ack_pings: bool = False
    is_prober: bool = False
    app_name: str = ""
    mesh_key: bytes | None = attrs.field(default=None, repr=False)
    """32 bytes; None where the client sent none, or one of all zeros."""


def client_info_size(head: bytes | bytearray | memoryview) -> int | None:
    """Return the size in bytes of the ClientInfo frame that begins with `head`.

    None for fewer than 5 bytes. Raises LoginRefused for another frame, and for one too short or too
    long to accept from a stranger.
    """
    if len(head) < HEADER_LENGTH:
        return None
    kind, length = HEADER.unpack_from(head)
    if kind != FrameType.CLIENT_INFO:
        raise LoginRefused(f"first frame has type 0x{kind:02x}, expected a client info")
    if length < KEY_LENGTH + NONCE_LENGTH:
        raise LoginRefused(f"client info of {length} bytes is too short")
    if length > MAX_CLIENT_INFO:
        raise LoginRefused(f"client info of {length} bytes is too long")
    return HEADER_LENGTH + int(length)


def open_client_info(server_key: PrivateKey, payload: bytes) -> tuple[bytes, ClientInfo, Box]:
    """Open a ClientInfo payload (Go: recvClientKey).

    Returns the client's 32-byte key, its info, and the Box for the answer. Raises LoginRefused.
    """
    client_key = payload[:KEY_LENGTH]
    try:
        box = Box(server_key, PublicKey(client_key))
        message = box.decrypt(payload[KEY_LENGTH:])
    except (nacl.exceptions.CryptoError, nacl.exceptions.RuntimeError, ValueError) as error:
        raise LoginRefused("client info does not open with the client's key") from error
    return client_key, parse_client_info(message), box


def seal_server_info(
    box: Box, bytes_per_second: int = 0, burst: int = 0, nonce: bytes | None = None
) -> bytes:
    """Build a ServerInfo frame; a rate of 0 bytes a second, no limit, is left out."""
    message = _server_info(bytes_per_second, burst)
    return frame(FrameType.SERVER_INFO, bytes(box.encrypt(message, nonce)))


@functools.lru_cache(maxsize=2)
def _server_info(bytes_per_second: int, burst: int) -> bytes:
    info = {"version": PROTOCOL_VERSION}
    if bytes_per_second:
        info["TokenBucketBytesPerSecond"] = bytes_per_second
        info["TokenBucketBytesBurst"] = burst
    return json.dumps(info, separators=(",", ":")).encode()


def parse_client_info(message: bytes) -> ClientInfo:
    """Parse the JSON of a client info as Go's encoding/json does. Raises LoginRefused.

    A malformed mesh key is refused, even an empty one or null; a well-formed but wrong one is not.
    """
    # Most clients send the same short JSON. One with a mesh key, a secret, is longer: not cached.
    return (_parse_common if len(message) <= _COMMON_LENGTH else _parse)(message)


def _parse(message: bytes) -> ClientInfo:
    fields: dict[str, Any] = {}
    try:
        pairs = gojson.read_pairs(message, _FIELDS)
    except gojson.NotAnObject as error:
        raise LoginRefused("client info is not a JSON object") from error
    except gojson.JSONFormError as error:
        raise LoginRefused("client info is not JSON") from error
    for name, value in pairs:
        attribute, kind = _FIELDS[name]
        if kind is bytes:
            fields[attribute] = _mesh_key(value)
        elif value is not None:
            # bool is an int in Python, but not in JSON.
            if type(value) is not kind:
                raise LoginRefused(f"client info field {name} is no {kind.__name__}")
            fields[attribute] = value
    return ClientInfo(**fields)


_COMMON_LENGTH: Final = 64
_parse_common: Final = functools.lru_cache(maxsize=16)(_parse)

_FIELDS: dict[str, tuple[str, type]] = {
    "meshKey": ("mesh_key", bytes),
    "version": ("version", int),
    "CanAckPings": ("can_ack_pings", bool),
    "IsProber": ("is_prober", bool),
    "AppName": ("app_name", str),
}


def _mesh_key(value: object) -> bytes | None:
    """Decode 64 hex digits; all zeros are no key (Go: DERPMesh.UnmarshalJSON)."""
    if not isinstance(value, str) or not _MESH_KEY.fullmatch(value):
        raise LoginRefused("client info has a malformed mesh key")
    key = bytes.fromhex(value)
    return key if any(key) else None


def parse_server_key(payload: bytes) -> bytes:
    """Parse a ServerKey payload; return the server's 32-byte key (Go: Client.recvServerKey).

    What later versions add is ignored. Raises LoginRefused.
    """
    if len(payload) < len(MAGIC) + KEY_LENGTH or not payload.startswith(MAGIC):
        raise LoginRefused("the greeting is not that of a DERP server")
    return payload[len(MAGIC) : len(MAGIC) + KEY_LENGTH]


def client_box(private_key: PrivateKey, server_key: bytes) -> Box:
    """Return the Box between a client and the server that it logs in to. Raises LoginRefused."""
    try:
        return Box(private_key, PublicKey(server_key))
    except (nacl.exceptions.CryptoError, nacl.exceptions.RuntimeError) as error:
        raise LoginRefused("the server's key is no public key") from error


def seal_client_info(
    box: Box, public_key: bytes, info: ClientInfo, nonce: bytes | None = None
) -> bytes:
    """Build the ClientInfo frame of the client whose key is `public_key` (Go: sendClientKey)."""
    fields: dict[str, Any] = {"version": info.version, "CanAckPings": info.can_ack_pings}
    if info.mesh_key is not None:
        fields = {"meshKey": info.mesh_key.hex(), **fields}
    if info.is_prober:
        fields["IsProber"] = True
    if info.app_name:
        fields["AppName"] = info.app_name
    message = json.dumps(fields, separators=(",", ":")).encode()
    return frame(FrameType.CLIENT_INFO, public_key + bytes(box.encrypt(message, nonce)))


def check_server_info(box: Box, payload: bytes) -> None:
    """Check that a ServerInfo payload is sealed by the server's key. Raises LoginRefused."""
    try:
        box.decrypt(payload)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise LoginRefused("server info does not open with the server's key") from error
