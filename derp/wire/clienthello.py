"""The server name and the protocols in a TLS ClientHello, parsed before there is an SSL object.

The first bytes of a connection are records (RFC 8446, 5.1), which hold the message in fragments:

    byte 0      22, a handshake record
    1-2         version, 3 and any minor number
    3-4         length of the fragment, 1 to 16384; all numbers are big-endian
    then        the fragment: the message, or as much of it as fits

The message (RFC 8446, 4.1.2), which TLS 1.2 clients send in the same form:

    byte 0      1, a ClientHello
    1-3         length of what follows
    2 bytes     version
    32 bytes    random
    1 + n       session id
    2 + n       cipher suites
    1 + n       compression methods
    2 + n       extensions, or nothing; each is a type of 2 bytes and 2 + n bytes of data

    server_name, type 0   (RFC 6066, 3)    2 + n: one entry, of type 0 and 2 + n bytes of host name
    ALPN, type 16         (RFC 7301, 3.1)  2 + n: protocols of 1 + n bytes each

Nothing is refused here: OpenSSL gets all bytes, and refuses with its own alerts. This module only
tells which context to use, and when the message is whole, since OpenSSL allocates a ClientHello's
announced length at once. Bytes that can't be parsed count as UNREADABLE, a hello that asks for
nothing. The parser reports them at once: it never waits for bytes that OpenSSL would not wait for.
"""

import hashlib
import struct
from typing import Final

import attrs

MAX_FLIGHT: Final = 80 << 10
"""Most bytes waited for; beyond, a ClientHello is UNREADABLE. There is room for 64 KiB in records,
the longest that Go's TLS accepts (OpenSSL: 128 KiB)."""
MAX_RECORDS: Final = 128
"""Most records waited for; beyond, a ClientHello is UNREADABLE."""

_HANDSHAKE: Final = 22
_MAJOR_VERSION: Final = 3
_MAX_FRAGMENT: Final = 1 << 14
_RECORD: Final = struct.Struct(">BBBH")

_CLIENT_HELLO: Final = 1
_SERVER_HELLO: Final = 2
_RANDOM: Final = slice(11, 43)
"""In a ServerHello, from the beginning of its record."""
_HELLO_RETRY_REQUEST: Final = hashlib.sha256(b"HelloRetryRequest").digest()
_MESSAGE_HEADER_LENGTH: Final = 4
_VERSION_AND_RANDOM_LENGTH: Final = 34

_EXTENSION: Final = struct.Struct(">HH")
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_ALPN: Final = 16


@attrs.frozen
class ClientHello:
    """The names in a ClientHello that choose the certificate and the protocol."""

    server_name: str | None
    """As sent: ASCII, not validated."""
    alpn: tuple[bytes, ...]
    """The protocols offered, in order of preference."""


UNREADABLE: Final = ClientHello(None, ())
"""Anything that is no ClientHello, or one too long, or one that can't be parsed in full."""


def is_tls(first: bytes) -> bool:
    """Return whether a connection's first byte is TLS's, or SSLv2's; as nginx tells them."""
    return first[:1] == bytes((_HANDSHAKE,)) or first[:1] >= b"\x80"


def is_whole(piece: bytes | bytearray | memoryview) -> bool:
    """Return whether a connection's first bytes hold a whole ClientHello in one record."""
    if len(piece) < _RECORD.size + _MESSAGE_HEADER_LENGTH:
        return False
    kind, major, _minor, length = _RECORD.unpack_from(piece)
    start = _RECORD.size
    size = _MESSAGE_HEADER_LENGTH + int.from_bytes(piece[start + 1 : start + 4], "big")
    return (
        kind == _HANDSHAKE
        and major == _MAJOR_VERSION
        and piece[start] == _CLIENT_HELLO
        and size <= length <= min(_MAX_FRAGMENT, len(piece) - start)
    )


def is_server_hello(flight: bytes) -> bool:
    """Return whether a server's first output accepts a ClientHello and asks for no other.

    A HelloRetryRequest is a ServerHello with a random of its own (RFC 8446, 4.1.3).
    """
    start = _RECORD.size
    return (
        flight[:1] == bytes((_HANDSHAKE,))
        and flight[start : start + 1] == bytes((_SERVER_HELLO,))
        and flight[_RANDOM] != _HELLO_RETRY_REQUEST
    )


class HelloReader:
    """The parser of one connection's ClientHello, in linear time however its bytes are split."""

    __slots__ = ("_message", "_offset", "_records", "flight")

    def __init__(self) -> None:
        self.flight = bytearray()
        """All bytes fed, for OpenSSL."""
        self._offset = 0
        """Where in the flight the first incomplete record begins."""
        self._message = bytearray()
        """The fragments of the `_records` before it."""
        self._records = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> ClientHello | None:
        """Take a connection's next bytes; return its ClientHello, once, when it is whole."""
        self.flight += piece
        try:
            return self._read()
        except _Unreadable:
            return UNREADABLE

    def _read(self) -> ClientHello | None:
        flight, message = self.flight, self._message
        while len(flight) - self._offset >= _RECORD.size:
            kind, major, _minor, length = _RECORD.unpack_from(flight, self._offset)
            if kind != _HANDSHAKE or major != _MAJOR_VERSION or not 0 < length <= _MAX_FRAGMENT:
                raise _Unreadable
            start = self._offset + _RECORD.size
            if len(flight) < start + length:
                break
            message += flight[start : start + length]
            self._offset = start + length
            self._records += 1
            if self._records > MAX_RECORDS or message[0] != _CLIENT_HELLO:
                raise _Unreadable
            if len(message) < _MESSAGE_HEADER_LENGTH:
                continue
            end = _MESSAGE_HEADER_LENGTH + int.from_bytes(message[1:_MESSAGE_HEADER_LENGTH], "big")
            if len(message) >= end:
                return _parse(bytes(message[_MESSAGE_HEADER_LENGTH:end]))
            if end > MAX_FLIGHT:
                raise _Unreadable
        if len(flight) >= MAX_FLIGHT:
            raise _Unreadable
        return None


def _parse(body: bytes) -> ClientHello:
    """Parse what follows the length of a ClientHello."""
    hello = _Fields(body)
    hello.take(_VERSION_AND_RANDOM_LENGTH)
    for width in (1, 2, 1):
        hello.vector(width)
    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()
    if hello.left:
        extensions = _Fields(hello.vector(2))
        seen = set()
        while extensions.left:
            kind, size = _EXTENSION.unpack(extensions.take(_EXTENSION.size))
            data = extensions.take(size)
            if kind in seen:
                raise _Unreadable
            seen.add(kind)
            if kind == _SERVER_NAME:
                server_name = _parse_server_name(data)
            elif kind == _ALPN:
                alpn = _parse_alpn(data)
    hello.end()
    return ClientHello(server_name, alpn)


def _parse_server_name(data: bytes) -> str:
    extension = _Fields(data)
    entries = _Fields(extension.vector(2))
    extension.end()
    if entries.number(1) != _HOST_NAME:
        raise _Unreadable
    name = entries.vector(2)
    entries.end()
    if not name.isascii():
        raise _Unreadable
    return name.decode("ascii")


def _parse_alpn(data: bytes) -> tuple[bytes, ...]:
    extension = _Fields(data)
    entries = _Fields(extension.vector(2))
    extension.end()
    protocols = []
    while entries.left:
        protocols.append(entries.vector(1))
    if not all(protocols):
        raise _Unreadable
    return tuple(protocols)


class _Fields:
    """A cursor over bytes; raises _Unreadable where they end within a field."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._offset

    def take(self, size: int) -> bytes:
        start = self._offset
        stop = start + size
        if stop > len(self._data):
            raise _Unreadable
        self._offset = stop
        return self._data[start:stop]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """Take a vector, which begins with its length, a number of `width` bytes."""
        return self.take(self.number(width))

    def end(self) -> None:
        if self._offset != len(self._data):
            raise _Unreadable


class _Unreadable(Exception):
    """The bytes are no ClientHello that can be parsed."""
