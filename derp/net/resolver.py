"""Look-ups of names, in threads of their own.

Where a name server hangs, a look-up takes a thread for as long as the C library has patience,
though whoever asked has long given up. Among the threads that Trio has for all that blocks, that
would keep lists and certificates from being read. Equal look-ups under way are one: however many
ask, each name takes one thread.
"""

import contextlib
import copy
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import trio

MOST: Final = 16
"""Look-ups at a time; others wait."""

_Args = tuple[object, ...]
_Found = list[Any]


@attrs.define(eq=False)
class _LookUp:
    wanted: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)
    found: _Found | Exception = attrs.field(factory=list)


class Resolver(trio.abc.HostnameResolver):
    """Asks the C library, as Trio does without it."""

    def __init__(self, look_up: Callable[..., _Found] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._under_way: dict[_Args, _LookUp] = {}
        self._waiting: dict[_Args, None] = {}
        self._threads = 0

    def install(self) -> None:
        """Have trio.socket.getaddrinfo, and what is built on it, ask this one, in this run."""
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 -- as in trio.abc
        proto: int = 0,
        flags: int = 0,
    ) -> _Found:
        """Look a name up. Raises what socket.getaddrinfo does."""
        args = (host, port, family, type, proto, flags)
        look_up = self._under_way.get(args)
        if look_up is None:
            look_up = self._under_way[args] = _LookUp()
            self._waiting[args] = None
            self._start()
        look_up.wanted += 1
        try:
            await look_up.done.wait()
        finally:
            look_up.wanted -= 1
            if not look_up.wanted and args in self._waiting:
                del self._waiting[args], self._under_way[args]
        if isinstance(look_up.found, Exception):
            # To each its own: an error that is raised gathers a traceback.
            raise copy.copy(look_up.found)
        return list(look_up.found)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Not supported: nothing here looks for the name of an address."""
        raise NotImplementedError

    def _start(self) -> None:
        """Give a thread to those that wait, as long as there are any."""
        token = trio.lowlevel.current_trio_token()
        while self._waiting and self._threads < MOST:
            args = next(iter(self._waiting))
            del self._waiting[args]
            self._threads += 1
            work, deliver = partial(self._work, args), partial(self._deliver, token, args)
            try:
                trio.lowlevel.start_thread_soon(work, deliver)
            except RuntimeError:
                # The process may have no more threads.
                self._close(args, socket.gaierror(socket.EAI_AGAIN, "no thread for a look-up"))

    def _work(self, args: _Args) -> _Found | Exception:
        try:
            return self._look_up(*args)
        except Exception as error:  # noqa: BLE001 -- raised to whoever waits for it
            return error

    def _deliver(self, token: trio.lowlevel.TrioToken, args: _Args, outcome: Any) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(self._end, args, outcome.unwrap())

    def _end(self, args: _Args, found: _Found | Exception) -> None:
        self._close(args, found)
        self._start()

    def _close(self, args: _Args, found: _Found | Exception) -> None:
        self._threads -= 1
        look_up = self._under_way.pop(args)
        look_up.found = found
        look_up.done.set()
