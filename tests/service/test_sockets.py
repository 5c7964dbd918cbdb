"""The sockets of several processes: what comes is spread, and nobody else gets the port."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from derp.config import Config
from derp.errors import StartError
from derp.net.activation import Inherited
from derp.net.congestion import algorithm_of
from derp.net.listenaddress import Address, UnixSocket
from derp.net.socketoptions import interface_of
from derp.service import sockets
from derp.service.sockets import Sockets
from stun.message import build_binding_request
from tests.support.config import make_config

Open = contextlib.ExitStack


@pytest.fixture
def stack() -> Iterator[Open]:
    with contextlib.ExitStack() as made:
        yield made


def config(host: str, port: int = 0, **flags: Any) -> Config:
    return make_config(dev=True, a=Address(host, port), stun_port=0, **flags)


def accepted(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_what_comes_is_spread(host: str, stack: Open) -> None:
    shared = sockets.open_all(config(host), stack, processes=3).processes
    to = host or "127.0.0.1"
    found = [
        next(s for s in each.main if (":" in to) == (s.family == socket.AF_INET6))
        for each in shared
    ]
    assert len({sock.getsockname() for sock in found}) == 1
    port = found[0].getsockname()[1]
    for _ in range(150):
        stack.enter_context(socket.create_connection((to, port)))
    counts = [accepted(sock) for sock in found]
    # Of 150, one in a billion times a third gets less than 10.
    assert sum(counts) == 150
    assert min(counts) >= 10


def test_requests_for_stun_are_spread(stack: Open) -> None:
    shared = sockets.open_all(config("127.0.0.1"), stack, processes=2).processes
    found = [each.stun[0] for each in shared]
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(build_binding_request(bytes(12)), found[0].getsockname())
    counts = [0, 0]
    for number, sock in enumerate(found):
        with contextlib.suppress(BlockingIOError):
            while sock.recv(100):
                counts[number] += 1
    assert sum(counts) == 100
    assert min(counts) >= 10


@pytest.mark.parametrize(
    ("of_stun", "hosts"),
    [("", ["127.0.0.1"]), ("127.0.0.2", ["127.0.0.2"]), ("*", ["0.0.0.0", "::"])],
)
def test_stun_may_have_an_address_of_its_own(of_stun: str, hosts: list[str], stack: Open) -> None:
    own = config("127.0.0.1", stun_addr=of_stun)
    (opened,) = sockets.open_all(own, stack).processes
    assert [sock.getsockname()[0] for sock in opened.main] == ["127.0.0.1"]
    assert sorted(sock.getsockname()[0] for sock in opened.stun) == hosts


@pytest.fixture
def note_send_from(stack: Open, monkeypatch: pytest.MonkeyPatch) -> Inherited:
    """What systemd holds: TCP on one address, UDP on another."""
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.2", 0))
    handed = Inherited([socket.socket(fileno=os.dup(sock.fileno())) for sock in (tcp, udp)])
    monkeypatch.setattr(sockets.activation, "inherited", lambda *_: handed)  # type: ignore[attr-defined]
    return handed


def asked_for(handed: Inherited, of_stun: str, **flags: str) -> Config:
    tcp, udp = (sock.getsockname()[1] for sock in handed.sockets)
    address = Address("127.0.0.1", tcp)
    return make_config(dev=True, a=address, stun_port=udp, stun_addr=of_stun, **flags)


@pytest.mark.parametrize("of_stun", ["", "127.0.0.2", "*"])
def test_systemd_may_hold_a_socket_for_stun_on_another_address(
    of_stun: str, note_send_from: Inherited, stack: Open
) -> None:
    (opened,) = sockets.open_all(asked_for(note_send_from, of_stun), stack).processes
    assert [sock.getsockname()[0] for sock in opened.stun] == ["127.0.0.2"]


def test_a_socket_of_systemds_for_stun_on_a_wrong_address(
    note_send_from: Inherited, stack: Open
) -> None:
    with pytest.raises(StartError, match=r"passes a socket on UDP 127\.0\.0\.2:\d+, which"):
        sockets.open_all(asked_for(note_send_from, "127.0.0.3"), stack)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_is_shared_is_nobody_elses(processes: int, stack: Open) -> None:
    (first, _) = sockets.open_all(config("127.0.0.1"), stack, processes=2).processes
    port = first.main[0].getsockname()[1]
    with pytest.raises(StartError, match="the port is in use by another program"):
        sockets.open_all(config("127.0.0.1", port), stack, processes=processes)


def test_a_socket_that_can_t_be_shared(stack: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sockets, "bind_reuseport", refuse)
    with pytest.raises(StartError, match=r"can't share 127\.0\.0\.1:\d+ between workers: Too many"):
        sockets.open_all(config("127.0.0.1"), stack, processes=2)


def test_the_sockets_of_all_processes_have_the_congestion_control(stack: Open) -> None:
    shared = sockets.open_all(config("", tcp_congestion="reno"), stack, processes=3).processes
    assert {algorithm_of(sock) for each in shared for sock in each.main} == {"reno"}


@pytest.mark.parametrize("processes", [1, 2])
def test_so_have_those_that_systemd_holds(
    processes: int, note_send_from: Inherited, stack: Open
) -> None:
    chosen = asked_for(note_send_from, "", tcp_congestion="reno")
    for each in sockets.open_all(chosen, stack, processes).processes:
        assert [algorithm_of(sock) for sock in each.main] == ["reno"]


def test_a_congestion_control_that_is_not_there_is_told_before_anything_is_opened(
    note_send_from: Inherited, stack: Open
) -> None:
    chosen = asked_for(note_send_from, "", tcp_congestion="nonesuch")
    with pytest.raises(
        StartError, match=r"^-tcp-congestion nonesuch: this kernel has only .*: mod"
    ):
        sockets.open_all(chosen, stack)
    assert len(note_send_from.sockets) == 2
    note_send_from.close()


def test_one_process_shares_nothing(stack: Open) -> None:
    (alone,) = sockets.open_all(config("127.0.0.1"), stack).processes
    assert isinstance(alone, Sockets)
    for sock in alone.all:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


class TestControl:
    def test_it_is_beside_the_key(self, tmp_path: Path, stack: Open) -> None:
        found = sockets.open_control(keyed(tmp_path), stack)
        assert found is not None
        path = tmp_path / "relay.sock"
        assert found.getsockname() == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        stack.close()
        assert not path.exists()

    @pytest.mark.parametrize("flags", [{"control_socket": ""}, {"control_socket": "none"}])
    def test_none_is_wanted(self, tmp_path: Path, stack: Open, flags: dict[str, str]) -> None:
        assert sockets.open_control(keyed(tmp_path, **flags), stack) is None
        assert sockets.open_control(config("127.0.0.1"), stack) is None  # -dev has no key file
        assert not [*tmp_path.iterdir()]

    def test_a_default_that_can_not_be_had_is_told(
        self, tmp_path: Path, stack: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The Go derper's users have it without having asked for it."""
        path = tmp_path / "relay.sock"
        path.write_text("mine")
        assert sockets.open_control(keyed(tmp_path), stack) is None
        assert path.read_text() == "mine"
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.__dict__["fields"] == {
            "reason": f"can't listen on unix:{path}: want a path where no other file is",
            "cure": "give -control-socket a path in a directory of derper's own, or none",
        }

    def test_that_of_a_relay_that_runs_is_left_alone(
        self, tmp_path: Path, stack: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert sockets.open_control(keyed(tmp_path), stack) is not None
        assert sockets.open_control(keyed(tmp_path), stack) is None
        assert (
            "the socket is in use by another program"
            in caplog.records[0].__dict__["fields"]["reason"]
        )
        named = keyed(tmp_path, control_socket=str(tmp_path / "relay.sock"))
        with pytest.raises(StartError, match="in use by another program"):
            sockets.open_control(named, stack)

    def test_a_long_path_or_no_directory(
        self, tmp_path: Path, stack: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert sockets.open_control(keyed(tmp_path / "none"), stack) is None
        assert sockets.open_control(keyed(tmp_path / ("x" * 200)), stack) is None
        reasons = [record.__dict__["fields"]["reason"] for record in caplog.records]
        assert "no such file or directory" in reasons[0]
        assert "path too long" in reasons[1]

    def test_a_named_path_has_to_be_had(self, tmp_path: Path, stack: Open) -> None:
        path = tmp_path / "none" / "s"
        with pytest.raises(StartError) as caught:
            sockets.open_control(keyed(tmp_path, control_socket=str(path)), stack)
        assert str(caught.value) == (
            f"-control-socket: can't listen on unix:{path}: no such file or directory; "
            "give -control-socket a path in a directory of derper's own, or none"
        )


def keyed(folder: Path, **flags: str) -> Config:
    return make_config(a=Address("127.0.0.1", 0), c=folder / "relay.key", **flags)


def test_each_address_is_opened_and_its_sockets_are_known_by_it(
    stack: Open, tmp_path: Path
) -> None:
    path = UnixSocket(tmp_path / "s")
    listed = (Address("127.0.0.1", 0), path, Address("", 0, 4))
    flags = {"metrics_addr": (Address("127.0.0.2", 0), UnixSocket(tmp_path / "m"))}
    chosen = make_config(dev=True, a=listed, stun_addr="127.0.0.1:0,127.0.0.2:0", **flags)
    opened = sockets.open_all(chosen, stack, processes=3)
    first = opened.processes[0]
    assert [opened.addresses[sock] for sock in first.main] == list(listed)
    assert [sock.getsockname()[0] for sock in first.stun] == ["127.0.0.1", "127.0.0.2"]
    assert [sock.family for sock in opened.monitoring] == [socket.AF_INET, socket.AF_UNIX]
    # A path can't be bound twice: all processes have that socket.
    assert all(each.main[1] is first.main[1] for each in opened.processes)
    assert len({each.main[0] for each in opened.processes}) == 3
    stack.close()
    assert list(tmp_path.iterdir()) == []


def test_plain_http_is_beside_each_address_but_unix_sockets(stack: Open, tmp_path: Path) -> None:
    listed = (Address("127.0.0.1", 0), Address("127.0.0.2", 0), UnixSocket(tmp_path / "s"))
    tls = {"certmode": "manual", "hostname": "127.0.0.1", "certdir": tmp_path, "http_port": 0}
    chosen = make_config(dev=True, a=listed, stun=False, **tls)
    (opened,) = sockets.open_all(chosen, stack).processes
    assert [sock.getsockname()[0] for sock in opened.plain] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize("processes", [1, 2])
def test_all_sockets_are_bound_to_the_interface(processes: int, stack: Open) -> None:
    chosen = config("", interface="lo", metrics_addr="127.0.0.1:0")
    opened = sockets.open_all(chosen, stack, processes)
    for each in opened.processes:
        assert {interface_of(sock) for sock in each.all} == {"lo"}
    # Loopback is an interface of its own.
    assert [interface_of(sock) for sock in opened.monitoring] == [""]


def test_so_are_those_that_systemd_holds(stack: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tcp = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("0.0.0.0", 0))
    handed = Inherited([socket.socket(fileno=os.dup(sock.fileno())) for sock in (tcp, udp)])
    monkeypatch.setattr(sockets.activation, "inherited", lambda *_: handed)  # type: ignore[attr-defined]
    ports = [sock.getsockname()[1] for sock in (tcp, udp)]
    flags = {"a": Address("", ports[0]), "stun_port": ports[1], "interface": "lo"}
    (opened,) = sockets.open_all(make_config(dev=True, **flags), stack).processes
    assert [interface_of(sock) for sock in opened.all] == ["lo", "lo"]


def test_an_interface_that_is_not_there_is_told_before_anything_is_opened(
    note_send_from: Inherited, stack: Open
) -> None:
    with pytest.raises(StartError, match=r"^-interface nonesuch0: this machine has no such"):
        sockets.open_all(asked_for(note_send_from, "", interface="nonesuch0"), stack)
    assert len(note_send_from.sockets) == 2
    note_send_from.close()


def test_systemd_may_hold_the_monitors_socket_and_some_of_several(
    note_send_from: Inherited, stack: Open
) -> None:
    tcp, udp = (sock.getsockname()[1] for sock in note_send_from.sockets)
    monitors = Address("127.0.0.1", tcp)
    stun = f"127.0.0.1:0,127.0.0.2:{udp}"
    chosen = make_config(dev=True, a=Address("", 0), metrics_addr=monitors, stun_addr=stun)
    opened = sockets.open_all(chosen, stack)
    assert [sock.getsockname()[1] for sock in opened.monitoring] == [tcp]
    assert [sock.getsockname()[0] for sock in opened.processes[0].stun] == [
        "127.0.0.1",
        "127.0.0.2",
    ]
