"""STUN messages (RFC 8489), as far as Tailscale clients use them. Sans-I/O.

A client asks "from which address do you see me?" with a binding request, and the success response
has it in XOR-MAPPED-ADDRESS. A message is a header of 20 bytes and attributes:

    2  type: 0x0001 binding request, 0x0101 binding success response
    2  length of what follows the header
    4  magic cookie 2112A442
   12  transaction ID
    then attributes, each
    2  type
    2  length n of the value, without padding
    n  value
  0-3  padding to a multiple of four bytes

All integers are big-endian. A Tailscale client's request is always these 40 bytes, and only
requests with its two attributes are answered, so that the responder is of no use to strangers, nor
for amplification (a response has 32 bytes for IPv4 and 44 for IPv6):

    0001 0014 2112a442 <transaction ID>  8022 0008 "tailnode"  8028 0004 <CRC-32>
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Generic, TypeVar
from zlib import crc32

import attrs

T = TypeVar("T")
IPAddress = IPv4Address | IPv6Address

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
MAGIC_COOKIE = b"\x21\x12\xa4\x42"
TAILSCALE_SOFTWARE = b"tailnode"
HEADER_LENGTH = 20
TRANSACTION_ID_LENGTH = 12
FINGERPRINT_LENGTH = 8  # with its attribute header
FINGERPRINT_XOR = 0x5354554E

_HEADER = Struct(">HH4s12s")
_ATTRIBUTE_HEADER = Struct(">HH")

MAX_REQUEST_LENGTH = 1500
"""A longer request is not answered: STUN over UDP keeps within a packet (RFC 8489 section 6.1)."""
MAX_ATTRIBUTES = 16
"""A request with more attributes is not answered, as each takes time. Tailscale sends two."""
CLIENT_REQUEST_LENGTH = 40
CLIENT_REQUEST_HEAD = b"\x00\x01\x00\x14" + MAGIC_COOKIE
"""Bytes 0 to 8 of every Tailscale client's request."""
CLIENT_REQUEST_TAIL = b"\x80\x22\x00\x08" + TAILSCALE_SOFTWARE + b"\x80\x28\x00\x04"
"""Bytes 20 to 36: SOFTWARE, and the header of FINGERPRINT. Only the CRC-32 follows."""


class StunError(Exception):
    """A datagram is not the message that was expected."""


class NotStunError(StunError):
    """A datagram has no STUN header."""


class NotBindingRequestError(StunError):
    """A STUN message is no binding request."""


class NotSuccessResponseError(StunError):
    """A STUN message is no binding success response."""


class MalformedAttributeError(StunError):
    """An attribute is cut short, or its value has a wrong form."""


class TooManyAttributesError(StunError):
    """A binding request has more than MAX_ATTRIBUTES attributes."""


class WrongSoftwareError(StunError):
    """A binding request has no SOFTWARE "tailnode"."""


class WrongFingerprintError(StunError):
    """A binding request's fingerprint is missing, not last, or wrong."""


class NoAddressError(StunError):
    """A success response has no address."""


@attrs.frozen
class MappedAddress:
    """The address and port that a STUN server saw a request come from."""

    address: IPAddress
    port: int


# Attribute values are packed and unpacked below; only XOR-MAPPED-ADDRESS uses the transaction ID.
def _pack_address(value: MappedAddress, _transaction_id: bytes) -> bytes:
    family = 1 if value.address.version == 4 else 2
    return bytes((0, family)) + value.port.to_bytes(2, "big") + value.address.packed


def _unpack_address(value: bytes, _transaction_id: bytes) -> MappedAddress:
    length = {1: 4, 2: 16}.get(value[1]) if len(value) >= 4 else None
    if length is None or len(value) < 4 + length:
        raise MalformedAttributeError(f"{value.hex() or 'nothing'} is no address and port")
    return MappedAddress(
        address=_unmap(ip_address(value[4 : 4 + length])),
        port=int.from_bytes(value[2:4], "big"),
    )


def _pack_xor_address(value: MappedAddress, transaction_id: bytes) -> bytes:
    return _xor_address(_pack_address(value, transaction_id), transaction_id)


def _unpack_xor_address(value: bytes, transaction_id: bytes) -> MappedAddress:
    return _unpack_address(_xor_address(value, transaction_id), transaction_id)


def _xor_address(value: bytes, transaction_id: bytes) -> bytes:
    """XOR the port with half the cookie, and the address with cookie and transaction ID."""
    pad = b"\x00\x00" + MAGIC_COOKIE[:2] + MAGIC_COOKIE + transaction_id
    # A longer value is cut to the 20 bytes of an IPv6 address; the rest is never used.
    return bytes(a ^ b for a, b in zip(value, pad, strict=False))


def _unmap(address: IPAddress) -> IPAddress:
    """Return the IPv4 address of an IPv4-mapped IPv6 address (::ffff:a.b.c.d), or the address."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _unchanged(value: bytes, _transaction_id: bytes) -> bytes:
    return value


def _pack_u32(value: int, _transaction_id: bytes) -> bytes:
    return value.to_bytes(4, "big")


def _unpack_u32(value: bytes, _transaction_id: bytes) -> int:
    if len(value) != 4:
        raise MalformedAttributeError(f"{value.hex() or 'nothing'} is no 32-bit number")
    return int.from_bytes(value, "big")


@attrs.frozen
class Attribute(Generic[T]):
    """A type of attribute: its number and name, and how its value is packed and unpacked."""

    number: int
    name: str
    _pack: Callable[[T, bytes], bytes]
    _unpack: Callable[[bytes, bytes], T]

    def pack(self, value: T, transaction_id: bytes) -> bytes:
        """Pack the whole attribute, padded to a multiple of four bytes."""
        packed = self._pack(value, transaction_id)
        padding = bytes(-len(packed) % 4)
        return _ATTRIBUTE_HEADER.pack(self.number, len(packed)) + packed + padding

    def unpack(self, value: bytes, transaction_id: bytes) -> T:
        """Unpack the value, given without padding. Raises MalformedAttributeError."""
        try:
            return self._unpack(value, transaction_id)
        except MalformedAttributeError as error:
            raise MalformedAttributeError(f"{self.name}: {error}") from None


# RFC 8489 section 14. Servers of RFC 3489bis drafts use 0x8020 for XOR-MAPPED-ADDRESS.
MAPPED_ADDRESS = Attribute(0x0001, "MAPPED-ADDRESS", _pack_address, _unpack_address)
XOR_MAPPED_ADDRESS = Attribute(0x0020, "XOR-MAPPED-ADDRESS", _pack_xor_address, _unpack_xor_address)
XOR_MAPPED_ADDRESS_DRAFT = attrs.evolve(XOR_MAPPED_ADDRESS, number=0x8020)
SOFTWARE = Attribute(0x8022, "SOFTWARE", _unchanged, _unchanged)
FINGERPRINT = Attribute(0x8028, "FINGERPRINT", _pack_u32, _unpack_u32)


def build_binding_request(transaction_id: bytes) -> bytes:
    """Build a Tailscale client's request; the ID is 12 random bytes (Go: stun.Request)."""
    software = SOFTWARE.pack(TAILSCALE_SOFTWARE, transaction_id)
    covered = _message(BINDING_REQUEST, transaction_id, software, room=FINGERPRINT_LENGTH)
    return covered + FINGERPRINT.pack(fingerprint(covered), transaction_id)


def parse_binding_response(data: bytes) -> tuple[bytes, MappedAddress]:
    """Parse a success response; return its transaction ID and address (Go: stun.ParseResponse).

    XOR-MAPPED-ADDRESS is preferred to MAPPED-ADDRESS, the last of several is used, and an
    IPv4-mapped address is returned as IPv4. Bytes beyond the length in the header are ignored.
    Raises NotStunError, NotSuccessResponseError, MalformedAttributeError or NoAddressError.
    """
    message_type, length, transaction_id = _parse_header(data)
    if message_type != BINDING_SUCCESS:
        raise NotSuccessResponseError(
            f"message type {message_type:#06x} is not {BINDING_SUCCESS:#06x}"
        )
    if length > len(data) - HEADER_LENGTH:
        raise MalformedAttributeError(f"{len(data) - HEADER_LENGTH} bytes of {length} are there")
    found: MappedAddress | None = None
    fallback: MappedAddress | None = None
    for number, value in _attributes(data[: HEADER_LENGTH + length]):
        if number in (XOR_MAPPED_ADDRESS.number, XOR_MAPPED_ADDRESS_DRAFT.number):
            found = XOR_MAPPED_ADDRESS.unpack(value, transaction_id)
        elif number == MAPPED_ADDRESS.number:
            fallback = MAPPED_ADDRESS.unpack(value, transaction_id)
    address = found or fallback
    if address is None:
        raise NoAddressError("neither XOR-MAPPED-ADDRESS nor MAPPED-ADDRESS is there")
    return transaction_id, address


def parse_binding_request(data: bytes) -> bytes:
    """Check a Tailscale client's binding request; return its transaction ID, 12 bytes.

    The request must have SOFTWARE "tailnode", and end with the right FINGERPRINT. As in Go's
    stun.ParseBindingRequest, the length in the header is ignored, and so are other attributes.
    A request longer than MAX_REQUEST_LENGTH is refused before its attributes are looked at, and of
    attributes MAX_ATTRIBUTES are looked at. Raises NotStunError, NotBindingRequestError,
    MalformedAttributeError, TooManyAttributesError, WrongSoftwareError or WrongFingerprintError.
    """
    if is_client_request(data):
        return data[8:HEADER_LENGTH]
    if len(data) > MAX_REQUEST_LENGTH:
        raise NotBindingRequestError(f"{len(data)} bytes are more than {MAX_REQUEST_LENGTH}")
    message_type, _, transaction_id = _parse_header(data)
    if message_type != BINDING_REQUEST:
        raise NotBindingRequestError(
            f"message type {message_type:#06x} is not {BINDING_REQUEST:#06x}"
        )
    from_tailscale = False
    number, value = None, b""
    for count, (number, value) in enumerate(_attributes(data), 1):
        if count > MAX_ATTRIBUTES:
            raise TooManyAttributesError(f"there are more than {MAX_ATTRIBUTES} attributes")
        if number == SOFTWARE.number and value == TAILSCALE_SOFTWARE:
            from_tailscale = True
    if not from_tailscale:
        raise WrongSoftwareError('there is no SOFTWARE "tailnode"')
    if number != FINGERPRINT.number:
        raise WrongFingerprintError("FINGERPRINT is not the last attribute")
    wanted = fingerprint(data[:-FINGERPRINT_LENGTH])
    if FINGERPRINT.unpack(value, transaction_id) != wanted:
        raise WrongFingerprintError(f"FINGERPRINT {value.hex()} is not {wanted:08x}")
    return transaction_id


def is_client_request(data: bytes) -> bool:
    """Return whether `data` is what Tailscale clients send: 40 bytes with the right fingerprint.

    This is the fast path of `parse_binding_request`, which also takes other valid forms.
    """
    return (
        len(data) == CLIENT_REQUEST_LENGTH
        and data.startswith(CLIENT_REQUEST_HEAD)
        and data[HEADER_LENGTH:36] == CLIENT_REQUEST_TAIL
        and crc32(data[:-FINGERPRINT_LENGTH]) ^ FINGERPRINT_XOR == int.from_bytes(data[36:], "big")
    )


def build_binding_response(transaction_id: bytes, address: IPAddress, port: int) -> bytes:
    """Build the success response for a request from `address` and `port` (Go: stun.Response).

    32 bytes for IPv4, 44 for IPv6; an IPv4-mapped IPv6 address is sent as IPv4.
    """
    mapped = MappedAddress(_unmap(address), port)
    return _message(
        BINDING_SUCCESS, transaction_id, XOR_MAPPED_ADDRESS.pack(mapped, transaction_id)
    )


def fingerprint(data: bytes) -> int:
    """Compute FINGERPRINT's value over the message before it (RFC 8489 section 14.7)."""
    return crc32(data) ^ FINGERPRINT_XOR


def _message(message_type: int, transaction_id: bytes, body: bytes, room: int = 0) -> bytes:
    """Put the header before `body`; `room` is the length of attributes to be appended."""
    length = len(body) + room
    return _HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id) + body


def _parse_header(data: bytes) -> tuple[int, int, bytes]:
    """Parse message type, length and transaction ID. Raises NotStunError."""
    if len(data) < HEADER_LENGTH:
        raise NotStunError(f"{len(data)} bytes are shorter than a STUN header")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if message_type > 0x3FFF or cookie != MAGIC_COOKIE:
        raise NotStunError(f"{data[:8].hex()} begins no STUN message")
    return message_type, length, transaction_id


def _attributes(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each attribute's number and unpadded value. Raises MalformedAttributeError."""
    offset = HEADER_LENGTH
    while offset < len(message):
        if len(message) - offset < 4:
            raise MalformedAttributeError(f"the attribute at {offset} has no whole header")
        number, length = _ATTRIBUTE_HEADER.unpack_from(message, offset)
        offset += 4
        padded = (length + 3) & ~3
        if padded > len(message) - offset:
            raise MalformedAttributeError(f"attribute {number:#06x} at {offset} is cut short")
        yield number, message[offset : offset + length]
        offset += padded
