"""Token buckets: for a client's bytes, peer-gone answers, and accepted connections."""


class TokenBucket:
    """A bucket that gains `rate` tokens a second and holds `burst` at most; full at first.

    Times are in seconds.
    """

    __slots__ = ("_last", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._last = now

    def allow(self, now: float) -> bool:
        """Take one token if there is one; return whether there was."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def reserve(self, tokens: float, now: float) -> float:
        """Take tokens, on credit if need be; return the seconds until the credit is repaid."""
        self._refill(now)
        self._tokens -= tokens
        return max(0.0, -self._tokens / self.rate)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._last)
        self._last = max(now, self._last)
        # 0 times an infinite rate would be NaN.
        if elapsed:
            self._tokens = min(self.burst, self._tokens + elapsed * self.rate)
