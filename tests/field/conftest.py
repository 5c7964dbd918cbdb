"""Fixtures of the field suite: the relay amid what those have who run one.

`python -m pytest tests/field` runs it. What is not installed here is skipped, and told at the end.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import golang
import pytest
import trustme
from proxies import KINDS, Kind, Proxy
from proxies import running as proxy_running
from relay import Relay, TestCA, free_port, running
from untested import tell

DEBUG_KEY = "correct-horse-battery-staple"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter, "A PART OF THE FIELD'S TESTS")


@pytest.fixture(scope="session")
def binaries() -> dict[str, Path]:
    try:
        return golang.build()
    except golang.NoGoError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def test_ca(tmp_path_factory: pytest.TempPathFactory) -> TestCA:
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    pem = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(pem)
    return TestCA(ca, pem)


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
