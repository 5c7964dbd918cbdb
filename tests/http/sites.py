from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from derp.http.access import DebugAccess
from derp.http.livepage import Look
from derp.http.statussource import StatusSource
from derp.http.steer import Outcome
from derp.wire.control import Order


async def no_traffic() -> AsyncGenerator[bytes, None]:
    yield b"\n"


async def show_look(look: Look) -> bytes:
    return repr(look).encode()


async def show_sort(sort: str) -> AsyncGenerator[bytes, None]:
    yield sort.encode()


async def do_nothing(order: Order, remote: str) -> Outcome:
    return Outcome(done=True, said=f"{order.action} by {remote}")


def returning(value: Any) -> Callable[[], Awaitable[Any]]:
    async def page() -> Any:
        return value

    return page


def make_status_source(**changes: Any) -> StatusSource:
    parts: dict[str, Any] = {
        "hostname": "derp.example",
        "public_key": bytes(range(32)),
        "debug_access": DebugAccess(frozenset({"derp.example"})),
        "page": show_look,
        "events": show_sort,
        "steer": do_nothing,
        "varz": returning("# TYPE gauge_x gauge\ngauge_x 1\n"),
        "expvars": returning('{\n"x": 1\n}\n'),
        "problems": returning([]),
        "traffic": no_traffic,
    }
    return StatusSource(**(parts | changes))
