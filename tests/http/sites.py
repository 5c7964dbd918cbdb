from collections.abc import AsyncGenerator
from typing import Any

from derp.http.access import DebugAccess
from derp.http.routes import StatusSource


async def no_traffic() -> AsyncGenerator[bytes, None]:
    yield b"\n"


def make_status_source(**changes: Any) -> StatusSource:
    parts: dict[str, Any] = {
        "hostname": "derp.example",
        "public_key": bytes(range(32)),
        "debug_access": DebugAccess(frozenset({"derp.example"})),
        "facts": lambda: [("Uptime", "3s"), ("Version", "<1>")],
        "varz": lambda: "# TYPE gauge_x gauge\ngauge_x 1\n",
        "expvars": lambda: '{\n"x": 1\n}\n',
        "problems": list,
        "traffic": no_traffic,
    }
    return StatusSource(**(parts | changes))
