"""A deadline for a step towards a link."""

from types import TracebackType

import trio

from derp.errors import NoLink


class NoLinkAt:
    """Raise `late` if the block is not done by `deadline`; else like trio.fail_at.

    Not made by contextlib: Python 3.13 leaves its generator and the exception in a cycle.
    """

    def __init__(self, deadline: float, late: NoLink) -> None:
        self._scope = trio.CancelScope(deadline=deadline)
        self._late = late

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        swallowed = self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise self._late
        return bool(swallowed)
