"""What one peer may cost: work that brings no data is bounded by budgets that data earns back."""

from typing import Final

FREE_READS: Final = 64
BYTES_FOR_READ: Final = 128
"""Bytes for which there may be another read: a quarter of the smallest segments that TCP has."""

FREE_EMPTY_RECORDS: Final = 64
DATA_FOR_EMPTY_RECORD: Final = 16 << 10
"""Bytes of data for which there may be another record without data: a thousandth of what libraries
encrypt with one key."""
RECORDS_A_TURN: Final = 128
"""Most TLS records that are decrypted at a time; one that changes the keys costs as much as ten."""
MAX_APPETITE: Final = 128 << 10
MIN_APPETITE: Final = 4 << 10


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
    """The TLS records without data that a connection may send, and how much to read of small ones.

    A connection needs one from its first record without data, or from the first time that there
    were more than RECORDS_A_TURN to decrypt, until it is `unneeded` again.
    """

    __slots__ = ("_credit", "appetite")

    def __init__(self) -> None:
        self.appetite = MAX_APPETITE
        """Bytes of ciphertext to read next: about RECORDS_A_TURN records, as far as is known."""
        self._credit = FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD

    def spend(self, data: int, empty: int, full_turn: int) -> bool:
        """Note what was decrypted: bytes of data, and how many records without any.

        `full_turn` is the ciphertext of all those records where they were RECORDS_A_TURN, else 0.
        Returns whether the connection may go on.
        """
        credit = self._credit + data - empty * DATA_FOR_EMPTY_RECORD
        self._credit = min(credit, FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD)
        if full_turn:
            self.appetite = max(full_turn, MIN_APPETITE)
        else:
            self.appetite = min(2 * self.appetite, MAX_APPETITE)
        return credit >= 0

    @property
    def unneeded(self) -> bool:
        """Whether it is as good as a new one."""
        return (
            self._credit == FREE_EMPTY_RECORDS * DATA_FOR_EMPTY_RECORD
            and self.appetite == MAX_APPETITE
        )
