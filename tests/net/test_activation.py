import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from derp.errors import StartError
from derp.net.activation import Inherited, inherited
from derp.net.listenaddress import Address, UnixSocket

PID = 4711
FIRST = 200


@pytest.fixture
def handed() -> Iterator[list[socket.socket]]:
    """Sockets to hand over, by `hand_over`; they are closed in the end."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def listening(host: str = "127.0.0.1", *, v6only: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((host, 0))
    sock.listen()
    return sock


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def hand_over(*sockets: socket.socket) -> tuple[Inherited, dict[str, str]]:
    """Put the sockets where systemd puts them, as far as a test can, and ask for them."""
    environ = {
        "LISTEN_PID": str(PID),
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": "derper.socket",
        "HOME": "/",
    }
    placed = [os.dup2(sock.fileno(), FIRST + n) for n, sock in enumerate(sockets)]
    try:
        found = inherited(environ, PID, FIRST)
    except BaseException:
        for descriptor in placed:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        raise
    return found, environ


def refusal(*sockets: socket.socket) -> str:
    with pytest.raises(StartError) as caught:
        hand_over(*sockets)
    text = str(caught.value)
    assert "\n" not in text
    return text


def close_all(found: Inherited, *taken: socket.socket) -> None:
    for sock in (*found.sockets, *taken):
        sock.close()


def test_each_goes_to_its_port(handed: list[socket.socket]):
    main, stun, plain = listening(), bound(), listening()
    handed += [main, stun, plain]
    found, environ = hand_over(*handed)
    (got_main,) = found.take(socket.SOCK_STREAM, Address("", port(main)))
    assert got_main.getsockname() == main.getsockname()
    assert not got_main.getblocking()
    assert not os.get_inheritable(got_main.fileno())
    assert found.take(socket.SOCK_STREAM, Address("", port(stun))) == []
    (got_stun,) = found.take(socket.SOCK_DGRAM, Address("", port(stun)))
    (got_plain,) = found.take(socket.SOCK_STREAM, Address("", port(plain)))
    assert got_plain.getsockname() == plain.getsockname()
    found.refuse_rest()
    assert environ == {"HOME": "/"}
    close_all(found, got_main, got_stun, got_plain)


def test_two_families_on_one_port(handed: list[socket.socket]):
    handed.append(listening("127.0.0.1"))
    other = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    handed.append(other)
    other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        other.bind(("::1", port(handed[0])))
    except OSError:
        pytest.skip("no IPv6, or the port is in use there")
    other.listen()
    found, _ = hand_over(*handed)
    taken = found.take(socket.SOCK_STREAM, Address("", port(handed[0])))
    assert {sock.family for sock in taken} == {socket.AF_INET, socket.AF_INET6}
    close_all(found, *taken)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "mine", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "0"},
    ],
)
def test_nothing_for_us(environ: dict[str, str]):
    found = inherited(environ, PID, FIRST)
    assert found.sockets == []
    found.refuse_rest()
    assert environ == {}


@pytest.mark.parametrize("count", ["", "-1", "two", "65", "9" * 5000, "٣"])
def test_wrong_counts(count: str):
    with pytest.raises(StartError, match="LISTEN_FDS"):
        inherited({"LISTEN_PID": str(PID), "LISTEN_FDS": count}, PID, FIRST)


def test_no_socket(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with path.open() as file:
        os.dup2(file.fileno(), FIRST)
    try:
        environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}
        with pytest.raises(StartError, match=f"descriptor {FIRST}, which is no socket"):
            inherited(environ, PID, FIRST)
    finally:
        os.close(FIRST)
    with pytest.raises(StartError, match="is no socket"):
        inherited({"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}, PID, FIRST)


def test_what_fits_nothing(handed: list[socket.socket]):
    handed += [bound(), listening()]
    found, _ = hand_over(*handed)
    taken = found.take(socket.SOCK_STREAM, Address("", port(handed[1])))
    with pytest.raises(StartError) as caught:
        found.refuse_rest()
    assert str(caught.value) == (
        f"systemd passes a socket on UDP 127.0.0.1:{port(handed[0])}, which nothing here "
        f"serves; want the addresses of -a, -stun-addr and -metrics-addr, and the ports of "
        f"-http-port and -stun-port, in the unit derper.socket"
    )
    assert found.sockets == []
    close_all(found, *taken)


def test_both_families_in_one(handed: list[socket.socket]):
    try:
        handed.append(listening("::", v6only=False))
    except OSError:
        pytest.skip("no IPv6")
    assert "BindIPv6Only=ipv6-only" in refusal(*handed)


def test_one_address_is_never_both(handed: list[socket.socket]):
    try:
        handed.append(listening("::1", v6only=False))
    except OSError:
        pytest.skip("no IPv6")
    found, _ = hand_over(*handed)
    assert len(found.sockets) == 1
    close_all(found)


def test_connections_and_other_kinds(handed: list[socket.socket]):
    handed += [*socket.socketpair()]
    assert "Accept=no" in refusal(handed[0])
    handed.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    assert "not TCP or UDP" in refusal(handed[2])
    listener = listening()
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    handed += [listener, client, accepted]
    assert "Accept=no" in refusal(accepted)
    # Those that were good are closed with it.
    refusal(listener, accepted)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(FIRST)


def test_the_address_has_to_be_that_which_is_configured(handed: list[socket.socket]):
    handed += [listening("127.0.0.1"), listening("0.0.0.0")]
    found, _ = hand_over(*handed)
    assert found.take(socket.SOCK_STREAM, Address("127.0.0.1", port(handed[1]))) == []
    assert found.take(socket.SOCK_STREAM, Address("127.0.0.2", port(handed[0]))) == []
    (one,) = found.take(socket.SOCK_STREAM, Address("127.0.0.1", port(handed[0])))
    (other,) = found.take(socket.SOCK_STREAM, Address("0.0.0.0", port(handed[1])))
    close_all(found, one, other)
    # A name may stand for any address.
    found, _ = hand_over(*handed)
    (named,) = found.take(socket.SOCK_STREAM, Address("localhost", port(handed[0])))
    close_all(found, named)


def test_other_protocols(handed: list[socket.socket]):
    try:
        handed.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP))
    except OSError:
        handed.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    assert "not TCP or UDP" in refusal(*handed)


def test_one_ip_version(handed: list[socket.socket]):
    handed.append(listening("127.0.0.1"))
    found, _ = hand_over(*handed)
    assert found.take(socket.SOCK_STREAM, Address("", port(handed[0]), 6)) == []
    (taken,) = found.take(socket.SOCK_STREAM, Address("", port(handed[0]), 4))
    close_all(found, taken)


def test_a_unix_socket_is_matched_by_its_path(handed: list[socket.socket], tmp_path: Path):
    path = tmp_path / "s"
    handed += [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), listening()]
    handed[0].bind(str(path))
    handed[0].listen()
    found, _ = hand_over(*handed)
    (tcp,) = found.take(socket.SOCK_STREAM, Address("", port(handed[1])))
    assert found.take(socket.SOCK_STREAM, UnixSocket(tmp_path / "other")) == []
    (taken,) = found.take(socket.SOCK_STREAM, UnixSocket(path))
    assert taken.getsockname() == str(path)
    close_all(found, tcp, taken)
    found, _ = hand_over(handed[0])
    with pytest.raises(StartError, match=f"passes a socket on unix:{path}, which nothing here"):
        found.refuse_rest()
