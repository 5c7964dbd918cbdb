"""What ties a socket to an interface, or marks its packets; and what an operator reads."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trio

from derp.errors import StartError
from derp.net.interfaces import address_of
from derp.net.socketoptions import (
    SocketFactory,
    SocketOptions,
    bind_to_interface,
    interface_of,
    used,
)


class Sockets:
    """Stands for socket.socket: its sockets take options, and refuse some."""

    def __init__(self, refuse: dict[int, int]) -> None:
        self.refuse = refuse

    def __call__(self, *_: object) -> "Sockets":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def setsockopt(self, _level: int, option: int, _value: object) -> None:
        if number := self.refuse.get(option):
            raise OSError(number, os.strerror(number))


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        yield made


def test_an_interface(sock: socket.socket) -> None:
    bind_to_interface(sock, "")
    assert interface_of(sock) == ""
    bind_to_interface(sock, "lo")
    assert interface_of(sock) == "lo"


def test_what_can_be_had_is_no_error() -> None:
    SocketOptions().check()
    SocketOptions(interface="lo").check()


def refusal(options: SocketOptions) -> str:
    with pytest.raises(StartError) as caught:
        options.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_interface_that_is_not_there() -> None:
    found = refusal(SocketOptions(interface="nonesuch0"))
    assert found.startswith("-interface nonesuch0: this machine has no such interface; it has ")
    assert "lo" in found


def test_where_the_interfaces_can_t_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[tuple[int, str]]:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "if_nameindex", refuse)
    found = refusal(SocketOptions(interface="nonesuch0"))
    assert found == "-interface nonesuch0: this machine has no such interface"


CAPABILITY = (
    "not permitted; give derper the capability CAP_NET_ADMIN: AmbientCapabilities= and "
    "CapabilityBoundingSet= in a unit, --cap-add NET_ADMIN for a container"
)


@pytest.mark.parametrize(
    ("options", "refused", "expected"),
    [
        (SocketOptions("lo"), socket.SO_BINDTODEVICE, f"-interface lo: {CAPABILITY}"),
        (SocketOptions("lo", 0x80), socket.SO_MARK, f"-mesh-fwmark 0x80: {CAPABILITY}"),
    ],
)
def test_what_is_not_permitted(
    options: SocketOptions, refused: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", Sockets({refused: errno.EPERM}))
    assert refusal(options) == expected


def test_another_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Sockets({socket.SO_MARK: errno.ENOPROTOOPT}))
    assert refusal(SocketOptions(mark=1)) == "-mesh-fwmark 0x1: protocol not available"


async def test_only_the_tasks_that_ask_for_them_get_options() -> None:
    SocketFactory().install()
    with trio.socket.socket() as plain:
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b""

    async def make() -> None:
        with trio.socket.socket() as made:
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"

    with used(SocketOptions("lo")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
    with trio.socket.socket() as plain:
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b""


async def test_a_socket_that_can_t_have_them_is_closed() -> None:
    SocketFactory().install()
    with used(SocketOptions("nonesuch0")), pytest.raises(OSError, match="No such device"):
        trio.socket.socket()


def test_the_address_of_an_interface(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    assert address_of("lo", table) == "127.0.0.1"
    assert address_of("nonesuch0", table) is None
    table.write_text(
        "fe800000000000000000000000000001 02 40 20 80 nonesuch0\n"
        "20010db8000000000000000000000007 03 40 00 80 other0\n"
        "20010db8000000000000000000000001 02 40 00 80 nonesuch0\n"
    )
    assert address_of("nonesuch0", table) == "2001:db8::1"
