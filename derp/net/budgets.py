"""What one peer may cost: work that brings no data is bounded by budgets that data earns back."""

from typing import Final

FREE_READS: Final = 64
BYTES_FOR_READ: Final = 128
"""Bytes for which there may be another read: a quarter of the smallest segments that TCP has."""

FREE_EMPTY_RECORDS: Final = 32
DATA_FOR_EMPTY_RECORD: Final = 16 << 10
"""Bytes of data for which there may be another record without data: a thousandth of what libraries
encrypt with one key."""


class ReadBudget:
    """The reads that one message may take before login: FREE_READS, and some in proportion to it.

    To wake a task for a byte costs as much as for a kilobyte. What a client has to say before its
    packets comes in a few segments, also over a bad path, which loses segments or holds them up but
    does not cut them smaller.
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = FREE_READS * BYTES_FOR_READ

    def spend(self, received: int) -> bool:
        """Note a read of so many bytes, maybe none; return whether there may be another one."""
        self._bytes += received - BYTES_FOR_READ
        return self._bytes >= 0


class RecordBudget:
    """The TLS records without data that a connection may send: some, and more for data.

    A connection needs one from its first record without data until it is `unneeded` again.
    """

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD

    def spend(self, data: int, empty: int) -> bool:
        """Note what was decrypted: bytes of data, and how many records without any.

        Returns whether the connection may go on.
        """
        credit = self._credit + data - empty * DATA_FOR_EMPTY_RECORD
        self._credit = min(credit, FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD)
        return credit >= 0

    @property
    def unneeded(self) -> bool:
        """Whether it is as good as a new one."""
        return self._credit == FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD
