"""The signals that a relay obeys, as events on a memory channel."""

import enum
import signal
from collections.abc import Awaitable, Callable

import trio


class Event(enum.Enum):
    """The meaning of a signal to the relay."""

    STOP = enum.auto()
    RELOAD = enum.auto()


async def receive_signals(
    events: trio.MemorySendChannel[Event],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Turn signals into events. No signal is missed from `task_status.started` on."""
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*handled) as signals:
        task_status.started()
        async for number in signals:
            await events.send(Event.RELOAD if number == signal.SIGHUP else Event.STOP)


Receive = Callable[..., Awaitable[None]]
"""The type of receive_signals, and of stand-ins for it."""
