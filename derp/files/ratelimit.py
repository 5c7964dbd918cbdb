"""The file of -rate-config: the bytes a second that each client may send, but not mesh peers.

    {"PerClientRateLimitBytesPerSec": 125000, "PerClientRateBurstBytes": 1000000}

Both are unsigned 64-bit integers. If the first is missing or 0, there is no limit. Matches
RateConfig, LoadRateConfig and UpdateRateLimits of the Go derper's derpserver.
"""

from pathlib import Path
from typing import Final

import attrs

from certs.ownership import warn_if_swappable
from derp.errors import DerperError, StartError
from derp.wire.frames import KEY_LENGTH, MAX_PACKET_SIZE
from derp.wire.gojson import JSONFormError, read_fields

MIN_BURST: Final = MAX_PACKET_SIZE + KEY_LENGTH
"""Bytes of the largest SendPacket frame, key and packet, which otherwise could never pass."""

ANNOUNCED_SECONDS: Final = 0.25
"""Seconds of sending at the rate: about the longest round-trip time between two clients."""

_RATE: Final = "PerClientRateLimitBytesPerSec"
_BURST: Final = "PerClientRateBurstBytes"


@attrs.frozen
class RateConfig:
    """A client's token bucket: `bytes_per_second` are its rate, `burst` bytes its size.

    Both are 0 if there is no limit; otherwise `burst` is at least MIN_BURST.
    """

    bytes_per_second: int
    burst: int

    @property
    def announced_burst(self) -> int:
        """The burst that ServerInfo announces: the bytes of ANNOUNCED_SECONDS, or `burst` if more.

        A client drops packets beyond this burst, while the relay only delays them: with a smaller
        one, TCP between two clients does not reach the rate.
        """
        return max(self.burst, int(self.bytes_per_second * ANNOUNCED_SECONDS))


NO_LIMIT: Final = RateConfig(0, 0)


def parse(data: bytes) -> RateConfig:
    """Parse the file's content. Raises JSONFormError."""
    numbers = {_RATE: 0, _BURST: 0}
    for name, value in read_fields(data, numbers).items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise JSONFormError(f"{name} is not a whole number of bytes")
        numbers[name] = value
    if numbers[_RATE] == 0:
        return NO_LIMIT
    return RateConfig(numbers[_RATE], max(numbers[_BURST], MIN_BURST))


def load(path: Path, failure: type[DerperError] = StartError) -> RateConfig:
    """Read the file at `path`, and warn if other users could replace it. Blocks.

    Raises `failure`: StartError at start, ReloadError at a reload.
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
