"""Requests to the one task that keeps a file in force: the list of keys, or the policy."""

from typing import Protocol, TypeVar

import trio

from derp.errors import SteeringFailed


class Request(Protocol):
    """A change that an operator wants; `ended` is set once its result is known."""

    @property
    def ended(self) -> trio.Event:
        """The event."""


R = TypeVar("R", bound=Request)


async def hand_over(
    to_keeper: trio.MemorySendChannel[R | None], request: R, seconds: float
) -> None:
    """Send a request to the keeper, and wait until it has ended, or `seconds` at most.

    Raises SteeringFailed if there is no keeper any more.
    """
    try:
        with trio.move_on_after(seconds):
            await to_keeper.send(request)
            await request.ended.wait()
    except trio.BrokenResourceError as error:
        raise SteeringFailed("the relay is stopping") from error


async def next_request(
    requests: trio.MemoryReceiveChannel[R | None], seconds: float
) -> tuple[R | None, bool]:
    """Wait for a request, `seconds` at most.

    Returns it, and whether there was a message: without a request, one to read the file at once.
    """
    with trio.move_on_after(seconds):
        return await requests.receive(), True
    return None, False
