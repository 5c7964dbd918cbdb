"""Fixtures of the interop suite. `python -m pytest tests/interop` runs it.

The relay under test is ours (`python -m derp`) unless --derper or DERPER_UNDER_TEST says `go`
(the Go derper, to check the suite itself) or gives a command line.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mesh import Clients
from tests.interop.pebble import Pebble, pebble
from tests.interop.rawderp import SERVER
from tests.interop.relay import (
    REPO,
    Relay,
    TestCA,
    command_under_test,
    die_with_parent,
    running,
    write_key_file,
)
from tests.interop.stage import Place
from tests.support.programs import binaries, test_ca

__all__ = ("binaries", "test_ca")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--derper",
        default=os.environ.get("DERPER_UNDER_TEST") or "ours",
        help="the relay under test: ours (default), go, or a command line",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"derper under test: {config.getoption('--derper')}"


DIFFERENCE = "difference from the Go derper"


@pytest.fixture
def differences(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Where ours is meant to differ from the Go derper, and does; told at the end."""
    found: list[str] = []
    yield found
    # These go from a process of xdist's to the one that tells them.
    request.node.user_properties += [(DIFFERENCE, line) for line in found]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    known = [
        line
        for report in terminalreporter.getreports("")
        if report.when == "teardown"
        for what, line in report.user_properties
        if what == DIFFERENCE
    ]
    if known:
        terminalreporter.section("documented differences from the Go derper, as expected")
        for line in known:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def under_test(request: pytest.FixtureRequest, binaries: dict[str, Path]) -> list[str]:
    """The command of the relay under test."""
    return command_under_test(request.config.getoption("--derper"), binaries["derper"])


@pytest.fixture(scope="session")
def is_go(request: pytest.FixtureRequest) -> bool:
    """Whether the suite checks itself against the Go derper."""
    return bool(request.config.getoption("--derper") == "go")


@pytest.fixture(scope="module")
def authority(
    binaries: dict[str, Path], is_go: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pebble]:
    """A real ACME server, for the tests of one file."""
    if is_go:
        pytest.skip("the Go derper asks no other authority than its own")
    with pebble(binaries, tmp_path_factory.mktemp("pebble")) as started:
        yield started


@pytest.fixture
def clients(test_ca: TestCA) -> Iterator[Clients]:
    """Makes clients of relays that are meshed."""
    with Clients(test_ca) as clients:
        yield clients


@pytest.fixture(scope="session")
def tls_relay(
    under_test: list[str], test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """The relay under test with a certificate for localhost, and STUN."""
    folder = tmp_path_factory.mktemp("tls")
    test_ca.issue(folder, "localhost")
    with running(Relay("tls", under_test, folder, stun=True)) as relay:
        yield relay


@pytest.fixture(scope="session")
def plain_relay(under_test: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The relay under test without TLS."""
    folder = tmp_path_factory.mktemp("plain")
    with running(Relay("plain", under_test, folder, tls=False)) as relay:
        yield relay


@pytest.fixture(scope="session")
def pinned_relay(
    under_test: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """The relay under test with an IP address for a hostname: it makes its own certificate."""
    folder = tmp_path_factory.mktemp("pinned")
    with running(Relay("pinned", under_test, folder, hostname="127.0.0.1")) as relay:
        yield relay


@pytest.fixture(scope="session")
def reference(
    binaries: dict[str, Path], test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The Go derper."""
    command = [str(binaries["derper"])]
    yield from place(command, test_ca, tmp_path_factory.mktemp("reference"), may_panic=True)


@pytest.fixture(scope="session")
def tested(
    under_test: list[str],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
    is_go: bool,
) -> Iterator[Place]:
    """The relay under test, with the same key and the same certificate authority."""
    yield from place(under_test, test_ca, tmp_path_factory.mktemp("tested"), may_panic=is_go)


def place(command: list[str], test_ca: TestCA, folder: Path, *, may_panic: bool) -> Iterator[Place]:
    write_key_file(folder / "derper.key", SERVER.private)
    test_ca.issue(folder, "localhost")
    with (
        running(Relay("tls", command, folder, stun=True, may_panic=may_panic)) as tls,
        running(Relay("plain", command, folder, tls=False, may_panic=may_panic)) as plain,
    ):
        yield Place(
            tls=(tls.host, tls.port),
            plain=(plain.host, plain.port),
            http=(tls.host, tls.http_port),
            stun=(tls.host, tls.stun_port),
            ca=str(test_ca.pem),
        )


@pytest.fixture(scope="session", autouse=True)
def early(request: pytest.FixtureRequest) -> None:
    """Have a wait of a minute begin with the first test, if any is for its end.

    Where several processes run tests, one of them waits, and the others go on.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ and any(
        "idle_clients" in getattr(item, "fixturenames", ()) for item in request.session.items
    ):
        # Where there is no Go, the tests that need it say so.
        with contextlib.suppress(pytest.fail.Exception):
            request.getfixturevalue("idle_clients")


@pytest.fixture(scope="session")
def idle_clients(
    binaries: dict[str, Path], under_test: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Idle clients of both derpers."""
    watching: dict[str, subprocess.Popen[str]] = {}
    for which, command in (("reference", [str(binaries["derper"])]), ("tested", under_test)):
        folder = tmp_path_factory.mktemp(f"idle-{which}")
        watching[which] = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.watch_keepalive", folder, *command],
            cwd=REPO,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    yield watching
    for process in watching.values():
        process.kill()
        process.communicate()
