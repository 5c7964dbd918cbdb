"""One way to wait for what gives no event: look again and again, until patience is at an end."""

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from tests.patience import PATIENCE

T = TypeVar("T")


def until(what: str, look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look until what is seen is true, or the like; return it. Raises AssertionError."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not so after {patience:.0f} s: {what}"
        time.sleep(0.02)
    return seen


async def until_async(what: str, look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Do as `until` does and let other tasks go on, whatever clock Trio has."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not so after {patience:.0f} s: {what}"
        time.sleep(0.001)  # noqa: ASYNC251 -- by Trio's clock, time may stand still
        await trio.lowlevel.checkpoint()
    return seen
