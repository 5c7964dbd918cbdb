"""Fields of Linux's `struct tcp_info` (linux/tcp.h).

Both functions raise struct.error where the struct is too short to have the field.
"""

from struct import unpack_from


def round_trip(info: bytes) -> float:
    """Return the kernel's estimate of the round-trip time in seconds (tcpi_rtt)."""
    microseconds: int = unpack_from("=I", info, 68)[0]
    return microseconds / 1e6


def sent_and_received(info: bytes) -> tuple[int, int]:
    """Return the bytes that the peer acknowledged and sent (tcpi_bytes_acked, -_received)."""
    sent, received = unpack_from("=QQ", info, 120)
    return sent, received
