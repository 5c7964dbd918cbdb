"""The scheduler of connections before login: only a few of them run per turn of the event loop.

Why: the next step of such a connection (a part of the TLS handshake, a page, the login, the end)
takes up to a millisecond, and Trio runs every runnable task in one turn: a client's packet would
wait for all of them that are ready at that moment. Here it waits for at most WAKES_PER_TURN; the
others wait in the order in which they became ready.

How it works: the scheduler has an epoll of its own, which Trio sees as one descriptor. In each turn
it asks this epoll for a few readable sockets. A socket is armed for one event at a time. Where the
system has no epoll, or the kernel no memory for another watch, a task waits for its socket through
Trio, and then for its turn.

Invariant: `forget` comes before a socket is closed, or registered with the poller.
"""

import select
from collections import OrderedDict
from typing import Any, Final, NoReturn

import trio

from derp.net import system

WAKES_PER_TURN: Final = 8
"""Most connections that are woken per turn of the event loop."""
_ONCE: Final = 0x1 | 1 << 30
"""EPOLLIN and EPOLLONESHOT of epoll_ctl(2)."""


class PreLoginScheduler:
    """A scheduler of tasks that wait in it: `run` wakes a few per turn of the event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if system.HAS_EPOLL else None
        # The sockets in the epoll, each with the task that waits for it, if any.
        self._waiting: dict[int, trio.lowlevel.Task | None] = {}
        # The sockets that tasks wait for through Trio, each with what ends the wait.
        self._through_trio: dict[int, trio.CancelScope] = {}
        # Tasks that may go on but are not yet woken, the first to be woken first.
        self._ready: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()
        self._sleep_scope: trio.CancelScope | None = None
        self.is_behind = False
        """Whether more could run in this turn than were woken, as far as is known."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while one of the sockets is; -1 without epoll."""
        return -1 if self._epoll is None else self._epoll.fileno()

    async def wait_readable(self, fd: int) -> None:
        """Wait until `fd` is readable, and then as in `wait_turn`; or until `forget(fd)`."""
        if not self._arm(fd):
            await self._wait_through_trio(fd)
            return
        self._waiting[fd] = task = trio.lowlevel.current_task()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            if self._waiting.get(fd) is task:
                self._waiting[fd] = None
            self._ready.pop(task, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _arm(self, fd: int) -> bool:
        """Watch for one event of `fd`; return False where nothing can watch it."""
        if self._epoll is None:
            return False
        try:
            if fd in self._waiting:
                self._epoll.modify(fd, _ONCE)
            else:
                self._epoll.register(fd, _ONCE)
        except OSError:
            return False
        return True

    async def _wait_through_trio(self, fd: int) -> None:
        with trio.CancelScope() as scope:
            self._through_trio[fd] = scope
            try:
                await trio.lowlevel.wait_readable(fd)
            finally:
                # After `forget` the number may be another socket's.
                if self._through_trio.get(fd) is scope:
                    del self._through_trio[fd]
            await self.wait_turn()

    async def wait_turn(self) -> None:
        """Wait to be woken by `run`: let other tasks run between two pieces of work."""
        task = trio.lowlevel.current_task()
        self._ready[task] = None
        if self._sleep_scope is not None:
            self._sleep_scope.cancel()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            del self._ready[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def forget(self, fd: int) -> None:
        """Remove a socket that is still open, and wake the task that waits for it."""
        if (scope := self._through_trio.pop(fd, None)) is not None:
            scope.cancel()
        if self._epoll is None or fd not in self._waiting:
            return
        task = self._waiting.pop(fd)
        self._epoll.unregister(fd)
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def run(self) -> NoReturn:
        """Wake a few tasks in each turn of the event loop, for ever."""
        while True:
            if self._ready:
                await trio.lowlevel.checkpoint()
            else:
                with trio.CancelScope() as self._sleep_scope:
                    if self._epoll is None:
                        await trio.sleep_forever()
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._sleep_scope = None
            self._wake_next()

    def _wake_next(self) -> None:
        readable = self._epoll.poll(0, WAKES_PER_TURN) if self._epoll is not None else ()
        for fd, _ in readable:
            if (task := self._waiting.get(fd)) is not None:
                self._waiting[fd] = None
                self._ready[task] = None
        for _ in range(min(WAKES_PER_TURN, len(self._ready))):
            trio.lowlevel.reschedule(self._ready.popitem(last=False)[0])
        self.is_behind = bool(self._ready) or len(readable) == WAKES_PER_TURN
