"""An oracle: tailscaled and an admission server that say whatever a test wants them to.

It runs as a process of its own, so that what it does costs the test no time; see
oracle_process.py for what it can be told.
"""

import contextlib
import http.client
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from tests.interop.golang import HERE
from tests.interop.oracle_process import Steps
from tests.interop.rawderp import Key
from tests.interop.relay import environment
from tests.interop.tailnet import background, ready

TIMEOUT = 30

PERSON = {"Node": {"ID": 7}, "UserProfile": {"LoginName": "someone@example.com"}}


def reply(body: str | bytes, status: str = "200 OK", *headers: str) -> list[object]:
    """The step that sends a whole response."""
    text = body if isinstance(body, str) else body.decode("latin-1")
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(text)}", "", text]
    return ["send", "\r\n".join(lines)]


ALLOW: Steps = [reply('{"Allow":true}')]
REFUSE: Steps = [reply('{"Allow":false}')]
KNOWN: Steps = [reply(json.dumps(PERSON), "200 OK", "Content-Type: application/json")]
UNKNOWN: Steps = [reply("no match for IP:port\n", "404 Not Found")]


@attrs.frozen
class Asked:
    """What an oracle was asked since it was last asked about that."""

    questions: list[tuple[str, str, str]]
    """Name, method and authorization of each."""
    open: int
    """Connections by which questions came, and that are still there."""
    most: int
    """How many of them there were at once."""

    def about(self) -> Counter[str]:
        """How often each was asked about, by name."""
        return Counter(name for name, _, _ in self.questions)


@attrs.frozen
class Oracle:
    socket: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/admit"

    def say(self, what: Mapping[str, Steps]) -> None:
        """Say this, by name, from now on."""
        self._post("/say", what)

    def admit(self, *keys: Key, steps: Steps = ALLOW) -> None:
        """Say this of these keys, as an admission server."""
        self.say({url_of(key): steps for key in keys})

    def stop(self) -> None:
        """Go down: connections end, and none is accepted."""
        self.process.kill()
        self.process.wait(TIMEOUT)

    def asked(self) -> Asked:
        told = self._post("/asked", {})
        return Asked([tuple(one) for one in told["asked"]], told["open"], told["most"])  # type: ignore[attr-defined]

    def _post(self, path: str, content: object) -> dict[str, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(content))
            response = connection.getresponse()
            assert response.status == 200, path
            answer: dict[str, object] = json.loads(response.read())
            return answer


def url_of(key: Key) -> str:
    return f"url:{key.public.hex()}"


def whois_of(key: Key) -> str:
    return f"whois:{key.public.hex()}"


@contextlib.contextmanager
def oracle(folder: Path) -> Iterator[Oracle]:
    path = folder / "oracle.sock"
    command = [sys.executable, str(HERE / "oracle_process.py"), str(path)]
    log = folder / "oracle.log"
    with background(command, log, environment()) as process:
        yield Oracle(path, int(ready(process)), process)
        assert not re.search(r"^Traceback", log.read_text(), re.MULTILINE), log.read_text()
