"""Fields of Linux's `struct tcp_info` (linux/tcp.h).

Both functions raise struct.error where the struct is too short to have the field.
"""

from struct import unpack_from
from typing import Protocol, runtime_checkable


@runtime_checkable
class OverTCP(Protocol):
    """A Transport of which the kernel knows."""

    def tcp_info(self) -> bytes:
        """Return the kernel's struct; empty if there is none. Raises OSError."""


def round_trip(info: bytes) -> float:
    """Return the kernel's estimate of the round-trip time in seconds (tcpi_rtt)."""
    microseconds: int = unpack_from("=I", info, 68)[0]
    return microseconds / 1e6


def sent_and_received(info: bytes) -> tuple[int, int]:
    """Return the bytes that the peer acknowledged and sent (tcpi_bytes_acked, -_received)."""
    sent, received = unpack_from("=QQ", info, 120)
    return sent, received
