"""Budgets for reads and TLS records that bring little or no data. Sans-I/O."""

from typing import Final

FREE_READS: Final = 64
BYTES_FOR_READ: Final = 128
"""Bytes that pay for one more read: a quarter of the smallest TCP segments."""

FREE_EMPTY_RECORDS: Final = 16
"""As many in a row as crypto/tls takes from a peer (maxUselessRecords)."""
DATA_FOR_EMPTY_RECORD: Final = 16 << 10
"""Data bytes that pay for one more empty record: honest KeyUpdates are a thousand times rarer."""


class ReadBudget:
    """The reads that a message before login may take: FREE_READS, and more with its size.

    Waking a task for a byte costs as much as for a kilobyte. Honest messages come in a few
    segments: a bad path loses or delays segments, but doesn't make them smaller.
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = FREE_READS * BYTES_FOR_READ

    def spend(self, received: int) -> bool:
        """Count a read of `received` bytes, maybe 0; return whether another read is allowed."""
        self._bytes += received - BYTES_FOR_READ
        return self._bytes >= 0


class RecordBudget:
    """The empty TLS records that a connection may send: FREE_EMPTY_RECORDS, and more with its data.

    Made for the first empty record; dropped once `unneeded`.
    """

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD

    def spend(self, data: int, empty: int) -> bool:
        """Count decrypted bytes and empty records; return whether the connection may go on."""
        credit = self._credit + data - empty * DATA_FOR_EMPTY_RECORD
        self._credit = min(credit, FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD)
        return credit >= 0

    @property
    def unneeded(self) -> bool:
        """Whether all of the budget has been earned back."""
        return self._credit == FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD
