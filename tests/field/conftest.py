"""Fixtures of the field suite: the relay amid what those have who run one.

`python -m pytest tests/field` runs it. What is not installed here is skipped, and told at the end.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.field.proxies import KINDS, Kind, Proxy
from tests.field.proxies import running as proxy_running
from tests.interop.relay import Relay, TestCA, free_port, running
from tests.interop.untested import tell
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")

DEBUG_KEY = "correct-horse-battery-staple"


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
def relays(test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Relay]]:
    """A relay with TLS, one without for proxies that serve it, and one that knows of its proxy."""
    command = [sys.executable, "-m", "derp"]
    made = {}
    for name in ("plain", "tls"):
        folder = tmp_path_factory.mktemp(name)
        key = folder / "debug.key"
        key.write_text(DEBUG_KEY)
        key.chmod(0o600)
        test_ca.issue(folder, "localhost")
        flags = ["-hostname", "localhost", "-debug-key-file", str(key)]
        made[name] = Relay(name, command, folder, tls=name == "tls", flags=flags)
    made["closed"] = attrs.evolve(
        made["tls"],
        name="closed",
        port=free_port(),
        http_port=free_port(),
        flags=[*made["tls"].flags, "-trusted-proxies", "127.0.0.1/32"],
    )
    with running(made["plain"]), running(made["tls"]), running(made["closed"]):
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
    with proxy_running(kind, folder, test_ca, plain=relays["plain"], tls=relays["tls"]) as made:
        yield made
