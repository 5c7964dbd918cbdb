"""The pages of a relay that runs as a process."""

import urllib.request

from tests.patience import PATIENCE
from tests.process import Derper, insecure
from tests.support.waiting import until_async


def page(relay: Derper, path: str, *, tls: bool = False) -> str:
    scheme, host, context = "http", "127.0.0.1", None
    if tls:
        scheme, host, context = "https", "localhost", insecure()
    url = f"{scheme}://{host}:{relay.port(scheme.upper())}{path}"
    with urllib.request.urlopen(url, context=context, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def varz(relay: Derper, *, tls: bool = False) -> dict[str, str]:
    lines = page(relay, "/debug/varz", tls=tls).splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


async def until_metric(relay: Derper, name: str, value: str, *, tls: bool = False) -> None:
    """Ask for a metric until it has that value."""
    await until_async(f"{name} is {value}", lambda: varz(relay, tls=tls)[name] == value)
