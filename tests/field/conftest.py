"""Fixtures of the field suite: the relay amid what those have who run one.

`python -m pytest tests/field` runs it. What is not installed here is skipped, and told at the end.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.field.proxies import KINDS, Kind, Proxy
from tests.field.proxies import running as proxy_running
from tests.interop.relay import Relay, TestCA, running
from tests.interop.untested import tell
from tests.support.admissionserver import admitting
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")

DEBUG_KEY = "correct-horse-battery-staple"
MESH_KEY = "a5" * 32


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what waits for minutes, unless it is asked for."""
    here = Path(__file__).parent
    left_out = [i for i in items if here in i.path.parents and i.get_closest_marker("patient")]
    if left_out and not config.option.markexpr:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter, "field", "A PART OF THE FIELD'S TESTS")


@pytest.fixture(scope="session")
def sources() -> Iterator[tuple[str, list[str]]]:
    """An admission server that allows all: its URL, and the addresses it was asked about."""
    with admitting() as found:
        yield found


@pytest.fixture(scope="session")
def relays(
    test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory, sources: tuple[str, list[str]]
) -> Iterator[dict[str, Relay]]:
    """A relay with TLS, and one without for proxies that serve it; each also without its proxies.

    "plain" and "tls" list those on this machine, "plain alone" and "tls alone" none.
    """
    command = [sys.executable, "-m", "derp"]
    # Every join has a line, however many there are.
    env = {**os.environ, "DERP_DEBUG_LOGS": "1"}
    made = {}
    for name in ("plain", "tls", "plain alone", "tls alone"):
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        for secret, content in (("debug.key", DEBUG_KEY), ("mesh.key", MESH_KEY)):
            (folder / secret).write_text(content)
            (folder / secret).chmod(0o600)
        test_ca.issue(folder, "localhost")
        flags = ["-hostname", "localhost", "-debug-key-file", str(folder / "debug.key")]
        flags += ["-mesh-psk-file", str(folder / "mesh.key"), "-verify-client-url", sources[0]]
        if "alone" not in name:
            flag = "-trusted-proxies" if name == "plain" else "-proxy-protocol-from"
            flags += [flag, "127.0.0.1/32"]
        tls = name.startswith("tls")
        made[name] = Relay(name.replace(" ", "-"), command, folder, tls=tls, flags=flags, env=env)
    with contextlib.ExitStack() as stack:
        for relay in made.values():
            stack.enter_context(running(relay))
        yield made


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def proxy(
    request: pytest.FixtureRequest,
    relays: dict[str, Relay],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """Each proxy before a relay."""
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp("proxy")
    relay = relays["tls" if kind.passes_tls else "plain"]
    with proxy_running(kind, folder, test_ca, relay) as made:
        yield made
