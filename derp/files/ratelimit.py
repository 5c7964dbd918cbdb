"""The file of -rate-config: how many bytes a second each client may send.

    {"PerClientRateLimitBytesPerSec": 125000, "PerClientRateBurstBytes": 1000000}

Both are whole numbers of 64 bits; without the first, or with 0, there is no limit. Matches
RateConfig, LoadRateConfig and UpdateRateLimits of the Go derper's derpserver.
"""

from pathlib import Path
from typing import Final

import attrs

from derp.errors import DerperError, StartError
from derp.files.ownership import warn_if_swappable
from derp.wire.frames import KEY_LENGTH, MAX_PACKET_SIZE
from derp.wire.gojson import JSONFormError, read_fields

MIN_BURST: Final = MAX_PACKET_SIZE + KEY_LENGTH
"""Bytes; a smaller burst could never let the largest SendPacket frame pass: packet and key."""

TOLD_SECONDS: Final = 0.25
"""About the longest round trip between two nodes."""

_RATE: Final = "PerClientRateLimitBytesPerSec"
_BURST: Final = "PerClientRateBurstBytes"


@attrs.frozen
class RateConfig:
    """A token bucket for each client: `bytes_per_second` flow in, and it holds `burst` bytes.

    Both are 0 if there is no limit; otherwise `burst` is at least MIN_BURST.
    """

    bytes_per_second: int
    burst: int

    @property
    def told_burst(self) -> int:
        """The burst that clients are told, in bytes: what flows in in TOLD_SECONDS, or more.

        A client drops what exceeds it, where the relay only lets that wait. With less, TCP between
        the nodes does not reach the rate.
        """
        return max(self.burst, int(self.bytes_per_second * TOLD_SECONDS))


NO_LIMIT: Final = RateConfig(0, 0)


def parse(data: bytes) -> RateConfig:
    """Read the content of a file. Raises JSONFormError."""
    numbers = {_RATE: 0, _BURST: 0}
    for name, value in read_fields(data, numbers).items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise JSONFormError(f"{name} is not a whole number of bytes")
        numbers[name] = value
    if numbers[_RATE] == 0:
        return NO_LIMIT
    return RateConfig(numbers[_RATE], max(numbers[_BURST], MIN_BURST))


def load(path: Path, failure: type[DerperError] = StartError) -> RateConfig:
    """Read the file at `path`, and warn if others could swap it. Blocks.

    Raises `failure`, for the caller to choose: StartError at start, ReloadError at a reload.
    """
    try:
        content = path.read_bytes()
        warn_if_swappable(path)
        return parse(content)
    except OSError as error:
        raise failure(f"-rate-config {str(path)!r}: {error.strerror}") from error
    except JSONFormError as error:
        want = f'want {{"{_RATE}": 125000, "{_BURST}": 1000000}}'
        raise failure(f"-rate-config {str(path)!r}: {error}; {want}") from None
