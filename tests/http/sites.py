from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from derp.http.access import DebugAccess
from derp.http.statussource import StatusSource


async def no_traffic() -> AsyncGenerator[bytes, None]:
    yield b"\n"


def returning(value: Any) -> Callable[[], Awaitable[Any]]:
    async def page() -> Any:
        return value

    return page


def make_status_source(**changes: Any) -> StatusSource:
    parts: dict[str, Any] = {
        "hostname": "derp.example",
        "public_key": bytes(range(32)),
        "debug_access": DebugAccess(frozenset({"derp.example"})),
        "rows": returning([("Uptime", "3s"), ("Version", "<1>")]),
        "varz": returning("# TYPE gauge_x gauge\ngauge_x 1\n"),
        "expvars": returning('{\n"x": 1\n}\n'),
        "problems": returning([]),
        "traffic": no_traffic,
    }
    return StatusSource(**(parts | changes))
