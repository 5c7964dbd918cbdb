"""One task that reads for all idle clients, past Trio's scheduler.

Why: the common load of a relay is many clients that send a packet now and then, and most of what
such a packet costs is waking up. Waking a Trio task takes an epoll_ctl to arm it, a turn of the
scheduler, and a dozen coroutine frames, gone cold since that client's last packet. So a client's
task registers its socket with the poller and sleeps. The poller calls the client's `step` whenever
the socket is readable, and wakes the task when `step` asks for it: to wait for something else, or
since the connection has ended. A client that sends much keeps its own task running instead.

How it works: the poller has a level-triggered epoll of its own, for which it waits through Trio
like any task. Once packets come in quick succession it *busy-polls*: it waits in its own epoll, and
nothing else runs, signals and results of threads included, for BUSY_POLL_TIME + POLL_TIMEOUT + the
steps in progress, at most. So the poller busy-polls only while `busy_tasks` is 0, and stops in time
for Trio's next deadline, and at once when an *urgent* socket is readable, one that another task
waits for through Trio: STUN's, the listeners', the pre-login scheduler's epoll.

Load from many clients at once doesn't starve others: a round of steps ends after MAX_ROUND seconds,
only HANG_UPS_PER_TURN hang-ups are handled per turn of the event loop, since each costs as much as
several packets, and the epoll returns ready sockets round-robin.

If the poller is off (`is_on`), as on a system without epoll, each client's task waits for its own
socket, as any Trio task does: slower with many clients, and the same in all else.

Invariants: no `step` waits; an exception of a `step` reaches only its connection's task, and does
not end `run`, and with it the relay; no socket is closed while it is registered.
"""

import contextlib
import itertools
import select
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import trio

from derp.net import system

POLL_TIMEOUT: Final = 0.01
"""Seconds to wait for the next packet while busy-polling. A millisecond would cost as much as the
packet: for a wait that ends before its next tick, the kernel has to program a timer."""
BUSY_POLL_TIME: Final = 0.01
"""Seconds of busy-polling before Trio's other tasks run; packets closer than this start it."""
SPIN_BELOW: Final = 50e-6
SPINS: Final = 8
"""After a wait shorter than SPIN_BELOW seconds, as between two peers that answer each other, the
poller polls this often before it sleeps: a processor's sleep and wake-up take longer."""
MAX_ROUND: Final = 0.005
"""Seconds of steps after which Trio's other tasks run, though more sockets are readable."""
HANG_UPS_PER_TURN: Final = 32
"""Hang-ups (sockets closed by their peers) handled per turn of the event loop."""
_EVENTS: Final = 32
"""Sockets to read from between two looks at the clock."""
_READABLE: Final = 0x1
_WATCHED: Final = _READABLE | 0x2000
"""EPOLLIN and EPOLLRDHUP of epoll_ctl(2), also where the module `select` has no names for them."""

Step = Callable[[], bool]
"""Reads once and acts on the data; returns whether its task has to run (Transport.read_through)."""


class Registration:
    """A socket that a task has registered with the poller."""

    __slots__ = ("_fd", "_poller", "_task", "failure", "step")

    def __init__(self, poller: "Poller", fd: int, step: Step) -> None:
        self.step = step
        self.failure: BaseException | None = None
        self._fd = fd
        self._poller = poller
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def end(self, failure: BaseException | None = None) -> None:
        """Unregister the socket and wake the task, in which `failure` is raised, if any."""
        if (task := self._task) is not None:
            self.forget()
            self.failure = failure
            trio.lowlevel.reschedule(task)

    def forget(self) -> None:
        """Unregister the socket without waking the task."""
        self._task = None
        self._poller.unregister(self._fd)


class Poller:
    """A reader of the registered sockets, while `run` runs."""

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on = is_on and system.HAS_EPOLL
        self.busy_tasks = 0
        """Running tasks that forbid busy-polling: send tasks, those of clients and links that are
        not registered, and logins that wait for a verdict. The code that starts one counts it."""
        if is_on:
            self._epoll = select.epoll()
            # An epoll of the urgent sockets, itself in `_epoll` only while busy-polling.
            self._urgent = select.epoll()
        self._urgent_fds: set[int] = set()
        self._registrations: dict[int, Registration] = {}
        # Registered sockets whose hang-up is not handled yet; not in the epoll.
        self._hung_up: OrderedDict[int, None] = OrderedDict()
        self._hang_ups_left = HANG_UPS_PER_TURN

    def add_urgent(self, fd: int) -> None:
        """Stop busy-polling as soon as `fd` is readable, since a task waits for it through Trio."""
        if not self._is_on:
            return
        # Where the kernel has no memory for another watch, that task is a little late.
        with contextlib.suppress(OSError):
            self._urgent.register(fd, _READABLE)
            self._urgent_fds.add(fd)

    def drop_urgent(self, fd: int) -> None:
        """Undo `add_urgent`, before `fd` is closed; `register` does so too."""
        if fd in self._urgent_fds:
            self._urgent_fds.remove(fd)
            self._urgent.unregister(fd)

    async def register(
        self, fd: int, step: Step, on_registration: Callable[[Registration | None], None]
    ) -> bool:
        """Have `step` called whenever `fd` is readable, until it returns True or raises.

        `on_registration` gets the Registration, and None at its end. Raises what `step` raises.
        Returns False at once, and calls nothing, where the poller is off, or the kernel has no
        memory for another watch: the task itself has to wait then.
        """
        self.drop_urgent(fd)
        if not self._watch(fd):
            return False
        self._registrations[fd] = registration = Registration(self, fd, step)
        self.busy_tasks -= 1
        on_registration(registration)

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            registration.forget()
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            on_registration(None)
        failure, registration.failure = registration.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # The traceback holds this frame: a cycle would keep the whole connection.
                del failure
        return True

    def _watch(self, fd: int) -> bool:
        with contextlib.suppress(OSError):
            if self._is_on:
                self._epoll.register(fd, _WATCHED)
            return self._is_on
        return False

    @contextlib.contextmanager
    def without_busy_polling(self) -> Iterator[None]:
        """Forbid busy-polling while another task waits for a result that may not be late."""
        self.busy_tasks += 1
        try:
            yield
        finally:
            self.busy_tasks -= 1

    def unregister(self, fd: int) -> None:
        """Remove `fd`, which is still open."""
        del self._registrations[fd]
        self.busy_tasks += 1
        if fd in self._hung_up:
            del self._hung_up[fd]
        elif not self._epoll.closed:
            self._epoll.unregister(fd)

    async def run(self) -> NoReturn:
        """Call the steps of readable sockets, for ever."""
        if not self._is_on:
            await trio.sleep_forever()
        recent_until = 0.0
        try:
            while True:
                if self._hung_up:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                now = time.perf_counter()
                self._handle_hang_ups()
                # One packet alone is not worth busy-polling for the next.
                idle = self._serve_all(now + MAX_ROUND) and not self.busy_tasks
                if idle and now < recent_until:
                    # Tasks that woke together with this one run first. One turn may not be enough:
                    # Trio runs the tasks of a turn in either order.
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    others = trio.lowlevel.current_statistics()
                    if not others.tasks_runnable:
                        now = time.perf_counter()
                        deadline = now + others.seconds_to_next_deadline
                        self._busy_poll(now + BUSY_POLL_TIME, deadline)
                recent_until = time.perf_counter() + BUSY_POLL_TIME
        finally:
            self._epoll.close()
            self._urgent.close()

    def _serve_all(self, leave_at: float) -> bool:
        """Call one step for each readable socket until `leave_at`; return whether to busy-poll."""
        left = len(self._registrations) + 1
        events = self._epoll.poll(0, _EVENTS)
        idle = self._serve(events)
        while len(events) == _EVENTS and (left := left - _EVENTS) > 0:
            if time.perf_counter() >= leave_at:
                return False
            if events := self._epoll.poll(0, _EVENTS):
                idle = self._serve(events) and idle
        return idle

    def _handle_hang_ups(self) -> None:
        """Call the steps of a few sockets whose peers have hung up."""
        for fd in list(itertools.islice(self._hung_up, HANG_UPS_PER_TURN)):
            # An earlier step may have ended the connection.
            if fd in self._hung_up:
                self._serve([(fd, _READABLE)])
            if fd in self._hung_up:
                # There was more to read.
                with contextlib.suppress(OSError):
                    self._epoll.register(fd, _WATCHED)
                    del self._hung_up[fd]
        self._hang_ups_left = 0 if self._hung_up else HANG_UPS_PER_TURN

    def _busy_poll(self, leave_at: float, deadline: float) -> None:
        """Busy-poll until `leave_at`, but not beyond `deadline`; both as of `perf_counter`."""
        poll, leave_at = self._epoll.poll, min(leave_at, deadline)
        spins = 0
        try:
            self._epoll.register(self._urgent, _READABLE)
        except OSError:
            return
        try:
            while not self.busy_tasks and not self._hung_up and time.perf_counter() < leave_at:
                for _ in range(spins):
                    if events := poll(0, _EVENTS):
                        break
                else:
                    start = time.perf_counter()
                    events = poll(max(0, min(POLL_TIMEOUT, deadline - start)), _EVENTS)
                    spins = SPINS if time.perf_counter() - start < SPIN_BELOW else 0
                if not self._serve(events):
                    break
        finally:
            self._epoll.unregister(self._urgent)

    def _serve(self, events: list[tuple[int, int]]) -> bool:
        """Call the steps of `events`; return whether to busy-poll."""
        registrations = self._registrations
        woken = False
        for fd, event in events:
            # None: an urgent socket, or a connection that an earlier step has ended.
            if (registration := registrations.get(fd)) is None:
                woken = True
                continue
            if event != _READABLE:
                if not self._hang_ups_left:
                    self._epoll.unregister(fd)
                    self._hung_up[fd] = None
                    woken = True
                    continue
                self._hang_ups_left -= 1
            try:
                done = registration.step()
            except Exception as error:  # noqa: BLE001 -- its task gets it
                registration.end(error)
                woken = True
            else:
                if done:
                    registration.end()
                    woken = True
        return bool(events) and not woken
