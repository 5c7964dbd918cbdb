"""TLS 1.3 records made by hand (RFC 8446), for what no well-behaved library sends."""

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
KEY_UPDATE_REQUESTED = bytes.fromhex("1800000101")


class RecordWriter:
    """The client's side of a connection with TLS_AES_256_GCM_SHA384, from its traffic secret."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(expand_label(secret, b"key", 32))
        self._iv = int.from_bytes(expand_label(secret, b"iv", 12))
        self._sequence = 0

    def record(self, content_type: int, payload: bytes) -> bytes:
        inner = payload + bytes((content_type,))
        header = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._sequence).to_bytes(12)
        self._sequence += 1
        return header + self._aead.encrypt(nonce, inner, header)

    def key_update(self) -> bytes:
        """Change to the next key, asking the peer to do so as well (RFC 8446, 4.6.3)."""
        record = self.record(HANDSHAKE, KEY_UPDATE_REQUESTED)
        self._use(expand_label(self._secret, b"traffic upd", 48))
        return record


def expand_label(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1) with an empty context."""
    full = b"tls13 " + label
    info = struct.pack(">HB", length, len(full)) + full + b"\0"
    return HKDFExpand(hashes.SHA384(), length, info).derive(secret)
