import ipaddress
import logging
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from derp.config.checks import Address
from derp.files.debugkey import DebugKey, debug_access
from derp.files.watched import READ_EVERY
from tests.support.config import make_config


@pytest.mark.parametrize("content", [b"secret", b"  secret\r\n", b"\n\tsecret"])
def test_white_space_around_it_does_not_count(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    key = DebugKey(path)
    key.read()
    assert key.value == b"secret"
    assert "secret" not in repr(key)


@pytest.mark.parametrize("what", ["missing", "empty", "blank", "long", "directory", "pipe"])
def test_what_is_no_key_opens_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    key = DebugKey(path)
    key.read()
    path.unlink()
    match what:
        case "empty" | "blank" | "long":
            path.write_bytes({"empty": b"", "blank": b" \n", "long": b"x" * 4097}[what])
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    for _ in range(3):
        key.read()
        assert key.value == b""
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "secret" not in caplog.text


def test_trouble_is_told_again_when_it_comes_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    key = DebugKey(path)
    key.read()
    path.write_bytes(b"secret")
    key.read()
    path.unlink()
    key.read()
    assert len(caplog.records) == 2


async def test_a_new_key_counts_soon_and_the_old_one_does_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    key = DebugKey(path)
    key.read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(key.watch)
        path.write_bytes(b"new")
        while key.value == b"old":  # noqa: ASYNC110 - threads know nothing of this clock
            await trio.sleep(READ_EVERY)
        assert key.value == b"new"
        nursery.cancel_scope.cancel()


async def test_without_a_file_nothing_is_watched() -> None:
    key = DebugKey(None)
    key.read()
    await key.watch()
    assert key.value == b""


def test_who_may_see_the_pages() -> None:
    config = make_config(
        dev=True,
        a=Address("", 0),
        hostname="Derp.Example",
        debug_allow_ip=(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("::2")),
        debug_trusted_cidrs=(ipaddress.ip_network("10.0.0.0/8"),),
    )
    key = DebugKey(None)
    access = debug_access(config, key)
    assert access.names == ("Derp.Example",)
    assert [str(network) for network in access.networks] == [
        "192.0.2.1/32",
        "::2/128",
        "10.0.0.0/8",
    ]
    assert access.key() == b""
    key.value = b"k"
    assert access.key() == b"k"
