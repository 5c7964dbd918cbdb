"""One task that reads for many connections: the way past Trio's scheduler for single packets.

Why: a relay's common load is many clients that send a packet now and then. Waking a Trio task for
each costs about 11 µs (an epoll_ctl to arm it, the scheduler, a resumed chain of coroutines), as
much as everything that is then done with the packet. So a client's task lends its socket to the
poller and sleeps; the poller calls the client's `step` whenever the socket is readable, and wakes
the task only when the connection is over, one way or the other.

How it works: the poller has an epoll of its own, level-triggered, and waits for that through Trio
like anybody else. Once something has come it stays: it asks its epoll again, for LINGER at a time
and STAY in all, before it lets Trio look at the rest of the world.

Invariants:
- A `step` never waits, and whatever it raises goes to the task whose connection it is.
- Other tasks wait for the poller no longer than STAY. Whoever makes a task runnable from within a
  step calls `leave`, so that it runs next.
- A socket is lent by one task at a time, and is taken back before it is closed.
"""

import select
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import outcome
import trio

from derp.errors import ConnectionEnd

LINGER: Final = 0.001
"""Seconds to wait for more, right after something has come; epoll counts in milliseconds."""
STAY: Final = 0.002
"""Seconds after which Trio has its turn."""
_EVENTS: Final = 256

Step = Callable[[], bool]
"""Reads once and acts on it; returns whether the task is to have its socket back."""


class Loan:
    """A socket that the poller watches for a task."""

    __slots__ = ("_fd", "_poller", "_task", "step")

    def __init__(self, poller: "Poller", fd: int, step: Step, task: trio.lowlevel.Task) -> None:
        self._poller = poller
        self._fd = fd
        self._task: trio.lowlevel.Task | None = task
        self.step = step

    def end(self, result: "outcome.Outcome[None]") -> None:
        """Stop watching and wake the task with `result`, unless that was done before."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._poller.forget(self._fd)
        self._poller.leave()
        trio.lowlevel.reschedule(task, result)

    def cancel(self) -> None:
        """Stop watching: the task wakes by itself."""
        self._task = None
        self._poller.forget(self._fd)


class Poller:
    """Watches the sockets that are lent to it, while `run` runs."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._loans: dict[int, Loan] = {}
        self._leave = False

    async def lend(self, fd: int, step: Step, remember: Callable[[Loan | None], None]) -> None:
        """Have `step` called whenever `fd` is readable, until it returns True or raises.

        `remember` is told the loan, and None when it is over.
        """
        loan = Loan(self, fd, step, trio.lowlevel.current_task())
        self._loans[fd] = loan
        self._epoll.register(fd, select.EPOLLIN)
        remember(loan)

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            loan.cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            remember(None)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, which is still open."""
        del self._loans[fd]
        self._epoll.unregister(fd)

    def leave(self) -> None:
        """Let Trio have its turn as soon as the current steps are done."""
        self._leave = True

    async def run(self) -> NoReturn:
        """Watch for ever."""
        try:
            await self._run()
        finally:
            self._epoll.close()

    async def _run(self) -> NoReturn:
        poll = self._epoll.poll
        now = time.perf_counter
        busy_until = 0.0
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._leave = False
            self._serve(poll(0, _EVENTS))
            start = now()
            # A packet that comes alone is not worth waiting for the next one.
            stay_until = start + STAY if start < busy_until else 0.0
            while not self._leave and now() < stay_until:
                events = poll(LINGER, _EVENTS)
                if not events:
                    break
                self._serve(events)
            busy_until = now() + STAY

    def _serve(self, events: list[tuple[int, int]]) -> None:
        loans = self._loans
        for fd, _ in events:
            # An earlier step of this turn may have ended this connection.
            loan = loans.get(fd)
            if loan is None:
                continue
            try:
                done = loan.step()
            except (ConnectionEnd, Exception) as error:  # noqa: BLE001 -- the task gets it
                loan.end(outcome.Error(error))
            else:
                if done:
                    loan.end(outcome.Value(None))
