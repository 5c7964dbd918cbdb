"""One task that reads for all clients that are calm: the way round Trio's scheduler.

Why: the common load of a relay is many clients that send a packet now and then, and most of what
such a packet costs is waking up. To wake a Trio task means an epoll_ctl to arm it, a turn of the
scheduler, and a dozen coroutine frames, gone cold since that client's last packet. So a client's
task lends its socket to the poller and sleeps. The poller calls the client's `step` whenever
the socket is readable, and wakes the task when `step` asks for it: to wait for something else, or
since the connection is over. A client that sends much keeps its own task busy instead.

How it works: the poller has a level-triggered epoll of its own, for which it waits through Trio
like anybody else. Once packets come in quick succession it stays: it waits in its own epoll, and
Trio has its turn after STAY + LINGER at the latest. While it stays nothing else runs, so it stays
only while no task is out that waits for a socket through Trio (`others`), and returns at once
when one of the sockets that it was told to watch, those of STUN and of the listeners, has
something. What is left may be that late: timers, signals, and what threads have to tell.

What must never happen here: a `step` that waits, or whose exception gets anywhere but to the
task whose connection it is; a socket that is closed while it is lent.

Measured with `nox -s bench -- --only many-1000x5 --only many-200x20`.
"""

import select
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import trio

from derp.errors import ConnectionEnd

LINGER: Final = 0.01
"""Seconds to wait for the next packet. A wait of a millisecond would cost as much as the packet:
the kernel has to set its timer anew for whatever is due before its next tick."""
STAY: Final = 0.01
"""Seconds after which Trio has its turn, and after which a packet no longer counts as recent."""
SOON: Final = 50e-6
SPINS: Final = 8
"""After a wait shorter than SOON seconds, as between two peers who answer each other, the poller
looks so often again before it sleeps: to put a processor to sleep and to wake it takes longer."""
_EVENTS: Final = 64

Step = Callable[[], bool]
"""Reads once and acts on it; returns whether the task is to go on itself."""


class Loan:
    """A socket that the poller watches for a task."""

    __slots__ = ("_fd", "_poller", "_task", "failure", "step")

    def __init__(self, poller: "Poller", fd: int, step: Step) -> None:
        self.step = step
        self.failure: BaseException | None = None
        self._fd = fd
        self._poller = poller
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def end(self, failure: BaseException | None = None) -> None:
        """Stop watching and wake the task, for which `failure` is raised. Once is enough."""
        if (task := self._task) is not None:
            self.forget()
            self.failure = failure
            trio.lowlevel.reschedule(task)

    def forget(self) -> None:
        """Stop watching."""
        self._task = None
        self._poller.forget(self._fd)


class Poller:
    """Watches the sockets that are lent to it, while `run` runs."""

    def __init__(self) -> None:
        self.others = 0
        """Tasks that wait for sockets through Trio, and for which the poller does not stay."""
        self._epoll = select.epoll()
        # In the epoll above only during a stay: otherwise it would wake the poller for nothing.
        self._watched = select.epoll()
        self._loans: dict[int, Loan] = {}

    def watch(self, fd: int) -> None:
        """Never stay while `fd` is readable; Trio knows who reads it."""
        self._watched.register(fd, select.EPOLLIN)

    async def lend(self, fd: int, step: Step, remember: Callable[[Loan | None], None]) -> None:
        """Have `step` called whenever `fd` is readable, until it returns True or raises.

        `remember` is told the loan, and None when it is over.
        """
        loan = Loan(self, fd, step)
        self._loans[fd] = loan
        self._epoll.register(fd, select.EPOLLIN)
        self.others -= 1
        remember(loan)

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            loan.forget()
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            remember(None)
        failure, loan.failure = loan.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback holds this frame: a cycle would keep the whole connection.
                del failure

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, which is still open."""
        del self._loans[fd]
        self.others += 1
        if not self._epoll.closed:
            self._epoll.unregister(fd)

    async def run(self) -> NoReturn:
        """Watch for ever."""
        recent = 0.0
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                now = time.perf_counter()
                calm = self._serve(self._epoll.poll(0, _EVENTS))
                # A packet that comes alone is not worth waiting for the next one.
                if calm and now < recent:
                    self._stay(now + STAY)
                recent = time.perf_counter() + STAY
        finally:
            self._epoll.close()
            self._watched.close()

    def _stay(self, leave_at: float) -> None:
        poll = self._epoll.poll
        spins = 0
        self._epoll.register(self._watched, select.EPOLLIN)
        try:
            while not self.others and time.perf_counter() < leave_at:
                for _ in range(spins):
                    if events := poll(0, _EVENTS):
                        break
                else:
                    start = time.perf_counter()
                    events = poll(LINGER, _EVENTS)
                    spins = SPINS if time.perf_counter() - start < SOON else 0
                if not self._serve(events):
                    break
        finally:
            self._epoll.unregister(self._watched)

    def _serve(self, events: list[tuple[int, int]]) -> bool:
        """Take the steps that are due; return whether to wait for more."""
        loans = self._loans
        woken = False
        for fd, _ in events:
            # None: a watched socket, or one whose connection an earlier step has ended.
            if (loan := loans.get(fd)) is None:
                woken = True
                continue
            try:
                done = loan.step()
            except (ConnectionEnd, Exception) as error:  # noqa: BLE001 -- its task gets it
                loan.end(error)
                woken = True
            else:
                if done:
                    loan.end()
                    woken = True
        return bool(events) and not woken
