"""The metacert: the certificate through which a DERP client learns the relay's public key.

It is the last in the chain of every TLS handshake with a client. A client that finds it (Go:
parseMetaCert in derp/derphttp, under TLS 1.3 only) knows the key and the protocol version before it
sends its first byte, and skips the round trip of the HTTP upgrade. Clients don't verify its
signature: the NaCl boxes of the login prove the key.

It is encoded by hand: x509 builders enforce X.520's 64 characters for a common name; this has 71.

    Certificate ::= SEQUENCE {                               RFC 5280, 4.1
        SEQUENCE {
            [0] INTEGER 2                                    X.509 version 3
            INTEGER                                          the DERP protocol version
            SEQUENCE { OID Ed25519 }                         RFC 8410
            Name                                             issuer: CN=derpkey<64 hex digits>
            SEQUENCE { Time, Time }                          not before, not after
            Name                                             subject: the same
            SubjectPublicKeyInfo                             an ephemeral key
            [3] SEQUENCE { SEQUENCE { OID, TRUE, {} } }      critical BasicConstraints: no CA
        }
        SEQUENCE { OID Ed25519 }
        BIT STRING                                           64-byte signature
    }
"""

from datetime import UTC, datetime, timedelta

from nacl.signing import SigningKey

PROTOCOL_VERSION = 2
"""derp.ProtocolVersion; clients accept serial numbers up to 255 as such."""

COMMON_NAME_PREFIX = "derpkey"

CLOCK_SKEW = timedelta(days=30)
"""How far a client's clock may be behind (as in Go)."""

LIFETIME = timedelta(days=3650)
"""Go's metacert expires 30 days after the start of the process and is never renewed. Tailscale's
clients ignore the date, but other programs may check it; ten years outlive any process."""

_OID_ED25519 = bytes.fromhex("06032b6570")  # 1.3.101.112
_OID_COMMON_NAME = bytes.fromhex("0603550403")  # 2.5.4.3
_OID_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")  # 2.5.29.19
_TRUE = bytes.fromhex("0101ff")

_INTEGER, _BIT_STRING, _OCTET_STRING = 0x02, 0x03, 0x04
_PRINTABLE_STRING, _UTC_TIME, _GENERALIZED_TIME = 0x13, 0x17, 0x18
_SEQUENCE, _SET, _VERSION_TAG, _EXTENSIONS_TAG = 0x30, 0x31, 0xA0, 0xA3


def make_metacert(server_public_key: bytes, now: datetime) -> bytes:
    """Return the metacert in DER for the relay's Curve25519 public key (32 bytes).

    `now` is timezone-aware. The signing key is ephemeral. Matches initMetacert of Go's
    derp/derpserver in all but the dates. Raises ValueError for a key of another length.
    """
    if len(server_public_key) != 32:
        raise ValueError(f"a DERP public key has 32 bytes, not {len(server_public_key)}")
    signing_key = SigningKey.generate()
    public_key = bytes(signing_key.verify_key)
    algorithm = _element(_SEQUENCE, _OID_ED25519)
    name = _name(COMMON_NAME_PREFIX + server_public_key.hex())
    constraints = _element(
        _SEQUENCE,
        _OID_BASIC_CONSTRAINTS,
        _TRUE,
        # macOS requires the extension where subject and issuer are the same.
        _element(_OCTET_STRING, _element(_SEQUENCE)),
    )
    to_be_signed = _element(
        _SEQUENCE,
        _element(_VERSION_TAG, _element(_INTEGER, b"\x02")),
        _element(_INTEGER, bytes([PROTOCOL_VERSION])),
        algorithm,
        name,
        _element(_SEQUENCE, _time(now - CLOCK_SKEW), _time(now + LIFETIME)),
        name,
        _element(_SEQUENCE, algorithm, _element(_BIT_STRING, b"\x00", public_key)),
        _element(_EXTENSIONS_TAG, _element(_SEQUENCE, constraints)),
    )
    signature = signing_key.sign(to_be_signed).signature
    return _element(_SEQUENCE, to_be_signed, algorithm, _element(_BIT_STRING, b"\x00", signature))


def _name(common_name: str) -> bytes:
    attribute = _element(
        _SEQUENCE, _OID_COMMON_NAME, _element(_PRINTABLE_STRING, common_name.encode("ascii"))
    )
    return _element(_SEQUENCE, _element(_SET, attribute))


def _time(when: datetime) -> bytes:
    """Encode a Time: two digits for the year before 2050, four from then on (RFC 5280)."""
    when = when.astimezone(UTC)
    if when.year < 2050:
        return _element(_UTC_TIME, when.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return _element(_GENERALIZED_TIME, when.strftime("%Y%m%d%H%M%SZ").encode("ascii"))


def _element(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
