"""Fields of Linux's `struct tcp_info` (linux/tcp.h).

All functions raise struct.error where the struct is too short to have the field.
"""

from struct import unpack_from
from typing import Final

_CLOSE: Final = 7
_CLOSE_WAIT: Final = 8
"""States (tcpi_state): the connection is over; only the peer's stream has ended."""


def round_trip(info: bytes) -> float:
    """Return the kernel's estimate of the round-trip time in seconds (tcpi_rtt)."""
    microseconds: int = unpack_from("=I", info, 68)[0]
    return microseconds / 1e6


def sent_and_received(info: bytes) -> tuple[int, int]:
    """Return the bytes that the peer acknowledged and sent (tcpi_bytes_acked, -_received).

    The end of the peer's stream counts as one byte that it sent.
    """
    sent, received = unpack_from("=QQ", info, 120)
    return sent, received


def peer_ended(info: bytes) -> bool | None:
    """Return whether the peer's stream has ended; None if the connection is over.

    Then the state does not tell, but see `streamend`.
    """
    return None if info[0] == _CLOSE else info[0] == _CLOSE_WAIT
