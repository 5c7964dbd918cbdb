"""Name look-ups, in threads of their own.

Where a name server hangs, a look-up keeps its thread for as long as the C library waits, even after
the task that asked has given up. So look-ups could take all of Trio's own threads from allow-lists
and certificates. Concurrent look-ups of one name share a thread.
"""

import contextlib
import copy
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import trio

MAX_THREADS: Final = 16
"""Concurrent look-ups; others wait."""

_Args = tuple[object, ...]
_Addresses = list[Any]


@attrs.define(eq=False)
class _LookUp:
    waiters: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: _Addresses | Exception = attrs.field(factory=list)


class Resolver(trio.abc.HostnameResolver):
    """A resolver that asks the C library, as Trio does by default."""

    def __init__(self, look_up: Callable[..., _Addresses] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._look_ups: dict[_Args, _LookUp] = {}
        self._waiting: dict[_Args, None] = {}
        self._threads = 0

    def install(self) -> None:
        """Make trio.socket.getaddrinfo use this resolver, in this run of Trio."""
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 -- as in trio.abc
        proto: int = 0,
        flags: int = 0,
    ) -> _Addresses:
        """Look up a name. Raises what socket.getaddrinfo does."""
        args = (host, port, family, type, proto, flags)
        look_up = self._look_ups.get(args)
        if look_up is None:
            look_up = self._look_ups[args] = _LookUp()
            self._waiting[args] = None
            self._start()
        look_up.waiters += 1
        try:
            await look_up.done.wait()
        finally:
            look_up.waiters -= 1
            if not look_up.waiters and args in self._waiting:
                del self._waiting[args], self._look_ups[args]
        if isinstance(look_up.outcome, Exception):
            # A copy for each task, since a raised error collects a traceback.
            raise copy.copy(look_up.outcome)
        return list(look_up.outcome)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Raise NotImplementedError: the relay does no reverse look-ups."""
        raise NotImplementedError

    def _start(self) -> None:
        """Start a thread for each waiting look-up, as far as the limit allows."""
        token = trio.lowlevel.current_trio_token()
        while self._waiting and self._threads < MAX_THREADS:
            args = next(iter(self._waiting))
            del self._waiting[args]
            self._threads += 1
            work, deliver = partial(self._work, args), partial(self._deliver, token, args)
            try:
                trio.lowlevel.start_thread_soon(work, deliver)
            except RuntimeError:
                # The process may be at its limit of threads.
                self._complete(args, socket.gaierror(socket.EAI_AGAIN, "no thread for a look-up"))

    def _work(self, args: _Args) -> _Addresses | Exception:
        try:
            return self._look_up(*args)
        except Exception as error:  # noqa: BLE001 -- raised in each task that waits
            return error

    def _deliver(self, token: trio.lowlevel.TrioToken, args: _Args, outcome: Any) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(self._finish, args, outcome.unwrap())

    def _finish(self, args: _Args, outcome: _Addresses | Exception) -> None:
        self._complete(args, outcome)
        self._start()

    def _complete(self, args: _Args, outcome: _Addresses | Exception) -> None:
        self._threads -= 1
        look_up = self._look_ups.pop(args)
        look_up.outcome = outcome
        look_up.done.set()
