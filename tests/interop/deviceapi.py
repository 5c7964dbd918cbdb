"""An API that lists devices, in a process of its own."""

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.interop.netns import Namespace
from tests.interop.pebble import dial
from tests.interop.rawderp import Key
from tests.interop.relay import REPO, environment
from tests.interop.tailnet import background, ready
from tests.support.deviceapis import device

TIMEOUT = 30


@attrs.frozen
class DeviceAPI:
    port: int
    space: Namespace | None = None
    """Where it is; None for here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, **fields: Any) -> None:
        """Set what it has; see deviceapi_process."""
        self._ask("POST", "/say", fields)

    def list(self, *keys: Key, **changes: Any) -> None:
        """Have these devices, and no others."""
        self.say(devices=[device(key.public, **changes) for key in keys])

    def refuse(self, status: int, body: str = "{}", **headers: str) -> None:
        self.say(refuse=[status, body, {k.replace("_", "-"): v for k, v in headers.items()}])

    def asked(self) -> Any:
        """The requests since this was called last."""
        return self._ask("GET", "/asked")

    def _ask(self, method: str, path: str, content: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.sock = dial(self.space, self.port)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(content))
            response = connection.getresponse()
            assert response.status == 200, path
            return json.loads(response.read())


@contextlib.contextmanager
def device_api(
    folder: Path, kind: str = "tailscale", port: int = 0, space: Namespace | None = None
) -> Iterator[DeviceAPI]:
    prefix = space.prefix if space else []
    command = [*prefix, sys.executable, "-m", "tests.interop.deviceapi_process", kind, "127.0.0.1"]
    env = environment(PYTHONPATH=str(REPO))
    with background([*command, str(port)], folder / "deviceapi.log", env) as process:
        yield DeviceAPI(int(ready(process)), space)
