from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from derp.http.access import DebugAccess
from derp.http.backend import Backend
from derp.http.livepage import PageOptions
from derp.http.steer import Outcome
from derp.wire.control import Command


async def no_traffic() -> AsyncGenerator[bytes, None]:
    yield b"\n"


async def show_options(options: PageOptions) -> bytes:
    return repr(options).encode()


async def show_sort(sort: str) -> AsyncGenerator[bytes, None]:
    yield sort.encode()


async def do_nothing(command: Command, remote: str) -> Outcome:
    return Outcome(done=True, said=f"{command.action} by {remote}")


def returning(value: Any) -> Callable[[], Awaitable[Any]]:
    async def page() -> Any:
        return value

    return page


def make_backend(**changes: Any) -> Backend:
    parts: dict[str, Any] = {
        "hostname": "derp.example",
        "public_key": bytes(range(32)),
        "debug_access": DebugAccess(frozenset({"derp.example"})),
        "page": show_options,
        "events": show_sort,
        "steer": do_nothing,
        "varz": returning("# TYPE gauge_x gauge\ngauge_x 1\n"),
        "expvars": returning('{\n"x": 1\n}\n'),
        "problems": returning([]),
        "traffic": no_traffic,
    }
    return Backend(**(parts | changes))
