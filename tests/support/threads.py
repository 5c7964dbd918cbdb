"""Threads for tests whose clock jumps while all tasks wait."""

from collections.abc import Callable

import pytest
import trio


def run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is given to a thread run in the event loop: the clock would jump meanwhile."""

    async def at_once(
        work: Callable[..., object], *args: object, abandon_on_cancel: bool = False
    ) -> object:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr("trio.to_thread.run_sync", at_once)
