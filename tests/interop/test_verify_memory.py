"""Verdicts are remembered: what a reconnect storm costs the admission server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.logins import ADMITTED, DEADLINE, REFUSED, dial, hello, verdict, verdicts
from tests.interop.oracle import ALLOW, REFUSE, Oracle, oracle
from tests.interop.oracle_process import Steps
from tests.interop.rawderp import SERVER, Key
from tests.interop.relay import Relay, running, write_key_file
from tests.interop.tailnet import eventually

STORM = 200


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper asks about every login")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Oracle]:
    with oracle(tmp_path) as started:
        yield started


@contextmanager
def asking(command: Sequence[str], folder: Path, server: Oracle, *flags: str) -> Iterator[Relay]:
    write_key_file(folder / "derper.key", SERVER.private)
    asked = ["-verify-client-url", server.url, *flags]
    with running(Relay("relay", command, folder, tls=False, flags=asked)) as relay:
        yield relay


@pytest.mark.parametrize(("steps", "expected"), [(ALLOW, ADMITTED), (REFUSE, REFUSED)])
def test_one_key_comes_again_and_again(
    under_test: list[str], server: Oracle, steps: Steps, expected: str, tmp_path: Path
) -> None:
    key = Key.named("again and again")
    server.admit(key, steps=steps)
    with asking(under_test, tmp_path, server) as relay:
        assert {verdict(relay, key) for _ in range(STORM)} == {expected}
        assert len(server.asked().questions) == 1


def test_one_key_comes_often_at_once(under_test: list[str], server: Oracle, tmp_path: Path) -> None:
    """Also where the first has vanished when the answer comes."""
    key = Key.named("often at once")
    server.admit(key, steps=[("wait", 0.5), *ALLOW])
    with asking(under_test, tmp_path, server) as relay:
        first = dial(relay)
        first.send(hello(key))
        eventually("it is asked about", DEADLINE, lambda: bool(server.asked().questions))
        first.close()
        assert set(verdicts(relay, [key] * STORM)) == {ADMITTED}
        assert len(server.asked().questions) <= 1, "one more, if the first one's went with it"


def test_many_keys_come_at_once(under_test: list[str], server: Oracle, tmp_path: Path) -> None:
    """One question each, and none when all come again."""
    keys = [Key.named(f"of many {number}") for number in range(STORM)]
    server.admit(*keys[::2])
    server.admit(*keys[1::2], steps=REFUSE)
    expected = [ADMITTED, REFUSED] * (STORM // 2)
    with asking(under_test, tmp_path, server) as relay:
        assert verdicts(relay, keys) == expected
        assert set(server.asked().about().values()) == {1}
        assert verdicts(relay, keys) == expected
        assert not server.asked().questions


def test_forgotten(under_test: list[str], server: Oracle, tmp_path: Path) -> None:
    """After the time that was asked for; and with 0 nothing is remembered."""
    key = Key.named("forgotten")
    server.admit(key)
    with asking(under_test, tmp_path, server, "-verify-remember", "500ms") as relay:
        assert verdict(relay, key) == ADMITTED
        server.admit(key, steps=REFUSE)
        assert verdict(relay, key) == ADMITTED
        eventually("it is refused", DEADLINE, lambda: verdict(relay, key) == REFUSED)
        server.admit(key)
        eventually("it is admitted", DEADLINE, lambda: verdict(relay, key) == ADMITTED)


def test_nothing_is_remembered(under_test: list[str], server: Oracle, tmp_path: Path) -> None:
    key = Key.named("never remembered")
    with asking(under_test, tmp_path, server, "-verify-remember", "0s") as relay:
        for steps, expected in [(ALLOW, ADMITTED), (REFUSE, REFUSED)] * 3:
            server.admit(key, steps=steps)
            assert verdict(relay, key) == expected
        assert len(server.asked().questions) == 6
