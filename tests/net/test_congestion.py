"""-tcp-congestion on real sockets; and the cure, from what the kernel is seen to have."""

import errno
import os
import socket
from pathlib import Path

import pytest

from derp.errors import StartError
from derp.net import congestion
from derp.net.congestion import Kernel, algorithm_of, bbr_cure, check
from derp.net.listenaddress import Address
from derp.net.listener import TCPOptions, open_listeners, take_over

PLAIN = Kernel(("reno", "cubic"), ("reno", "cubic"))
LOADED = Kernel(("reno", "cubic", "bbr"), ("reno", "cubic"))
ALLOWED = Kernel(("reno", "bbr", "cubic"), ("reno", "bbr", "cubic"))
MODULE = Kernel(("reno", "cubic"), ("reno", "cubic"), has_bbr_module=True)
SYSCTL = "sysctl -w net.core.default_qdisc=fq net.ipv4.tcp_congestion_control=bbr"


def kernels_own() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        return algorithm_of(fresh)


def accepted_algorithm(listener: socket.socket) -> str:
    listener.setblocking(True)
    with socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            return algorithm_of(accepted)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("algorithm", ["reno", "cubic"])
def test_accepted_connections_have_it(host: str, algorithm: str) -> None:
    (listener,) = open_listeners(Address(host, 0), TCPOptions(congestion=algorithm))
    with listener:
        assert accepted_algorithm(listener) == algorithm


def test_so_have_those_of_a_socket_that_was_passed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        take_over(listener, TCPOptions(congestion="reno"))
        assert accepted_algorithm(listener) == "reno"


def test_without_a_name_the_kernels_or_the_sockets_own_stays() -> None:
    (listener,) = open_listeners(Address("127.0.0.1", 0), TCPOptions())
    with listener:
        assert accepted_algorithm(listener) == kernels_own()
        # As by TCPCongestion= in systemd's unit.
        congestion.apply(listener, "reno")
        take_over(listener, TCPOptions())
        assert accepted_algorithm(listener) == "reno"


def test_what_the_kernel_has_is_right() -> None:
    for algorithm in ("reno", "cubic"):
        check(algorithm, Kernel())


def refusal(algorithm: str, kernel: Kernel) -> str:
    with pytest.raises(StartError) as caught:
        check(algorithm, kernel)
    return str(caught.value)


def test_what_it_does_not_have_is_told_with_the_cure() -> None:
    begin, end = (
        "-tcp-congestion nonesuch: this kernel",
        "; load it on the host: modprobe tcp_nonesuch",
    )
    assert refusal("nonesuch", PLAIN) == f"{begin} has only reno, cubic{end}"
    # In a container without /proc/sys.
    assert refusal("nonesuch", Kernel()) == f"{begin} does not have it{end}"


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def apply(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(congestion, "apply", apply)


def test_what_only_root_may_use_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.EPERM)
    assert refusal("bbr", LOADED) == (
        "-tcp-congestion bbr: only root may use it; allow it on the host: "
        "sysctl -w 'net.ipv4.tcp_allowed_congestion_control=reno cubic bbr', "
        "or give derper the capability CAP_NET_ADMIN"
    )


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.ENOPROTOOPT)
    assert refusal("bbr", ALLOWED) == "-tcp-congestion bbr: protocol not available"


# The cure.


@pytest.mark.parametrize(
    ("used", "kernel", "cure"),
    [
        ("cubic", ALLOWED, f"{SYSCTL}, or -tcp-congestion bbr"),
        ("reno", ALLOWED, f"{SYSCTL}, or -tcp-congestion bbr"),
        # Root's sysctl loads and allows it; the relay may not be root.
        ("cubic", LOADED, SYSCTL),
        ("cubic", MODULE, SYSCTL),
        ("cubic", PLAIN, None),
        ("bbr", ALLOWED, None),
        ("bbr3", ALLOWED, None),
        ("cubic", Kernel(), None),
        ("", ALLOWED, None),
    ],
)
def test_bbr_is_hinted_at_where_it_is_known_to_be_there(
    used: str, kernel: Kernel, cure: str | None
) -> None:
    assert bbr_cure(used, kernel) == cure


def machine(root: Path, *, module: str = "", available: str = "reno cubic\n") -> Kernel:
    sysctls, modules = root / "ipv4", root / "modules"
    sysctls.mkdir()
    (sysctls / "tcp_available_congestion_control").write_text(available)
    (sysctls / "tcp_allowed_congestion_control").write_text("reno cubic\n")
    folder = modules / os.uname().release / "kernel/net/ipv4"
    folder.mkdir(parents=True)
    (folder / "tcp_vegas.ko").touch()
    if module:
        (folder / module).touch()
    return Kernel.read(sysctls, modules)


@pytest.mark.parametrize("module", ["tcp_bbr.ko", "tcp_bbr.ko.xz", "tcp_bbr.ko.zst"])
def test_a_module_is_seen(module: str, tmp_path: Path) -> None:
    assert machine(tmp_path, module=module) == MODULE


def test_so_is_what_is_loaded(tmp_path: Path) -> None:
    assert machine(tmp_path) == PLAIN
    other = tmp_path / "other"
    other.mkdir()
    assert machine(other, available="reno cubic bbr\n") == LOADED


def test_what_can_t_be_read_is_not_there(tmp_path: Path) -> None:
    assert Kernel.read(tmp_path / "none", tmp_path / "none") == Kernel()
    file = tmp_path / "file"
    file.touch()
    assert Kernel.read(file, file) == Kernel()


def test_what_is_no_tcp_socket_has_no_algorithm() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        assert algorithm_of(sock) == ""
