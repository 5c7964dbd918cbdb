"""The questions, put to servers on loopback that answer in every wrong way."""

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import pytest
import trio
from trio.testing import MockClock

from derp.cli import probe
from derp.cli.probe import NoDERP, NoSTUN, NoTLS, NotReached
from derp.net import tlserrors
from derp.net.address import Endpoint
from derp.wire.frames import server_key
from stun.message import build_binding_response, parse_binding_request
from tests.process import insecure

KEY = bytes(range(32))
Answer = Callable[[trio.SocketStream], Awaitable[None]]


StunAnswer = Callable[[bytes, tuple[str, int]], bytes | None]
Asked = Callable[[StunAnswer], Awaitable[int]]
Listen = Callable[[Answer], Awaitable[Endpoint]]


@pytest.fixture
def listen(nursery: trio.Nursery) -> Listen:
    """Serve each connection to a port on loopback with an answer."""

    async def listen(answer: Answer) -> Endpoint:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        return Endpoint("127.0.0.1", listener.socket.getsockname()[1])

    return listen


def saying(*pieces: bytes) -> Answer:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()

    return answer


async def silence(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def upgraded(where: Endpoint, seconds: float = 20.0) -> bytes:
    deadline = trio.current_time() + seconds
    async with await probe.connect(where, deadline) as stream:
        return await probe.upgrade(stream, where, "relay.example", deadline)


async def test_nobody_listens():
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        where = Endpoint("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(NotReached, match=r"^TCP 127\.0\.0\.1:\d+: connection refused$") as caught:
        await probe.connect(where, trio.current_time() + 20)
    assert not caught.value.no_route


async def test_the_greeting_of_a_relay_may_come_in_pieces(listen: Listen):
    frame = server_key(KEY)
    assert await upgraded(await listen(saying(frame))) == KEY
    assert await upgraded(await listen(saying(frame[:3], frame[3:30], frame[30:] + b"more"))) == KEY
    assert await upgraded(await listen(saying(*(bytes([byte]) for byte in frame)))) == KEY


async def test_a_key_may_look_like_the_end_of_a_line(listen: Listen):
    key = b"\r\n" * 16
    frame = server_key(key)
    assert await upgraded(await listen(saying(frame[:20], frame[20:]))) == key


async def test_the_request_is_a_fast_start(listen: Listen):
    requests = []

    async def answer(stream: trio.SocketStream) -> None:
        requests.append(await stream.receive_some(4096))
        await stream.send_all(server_key(KEY))

    await upgraded(await listen(answer))
    (request,) = requests
    assert request == (
        b"GET /derp HTTP/1.1\r\nHost: relay.example\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
        b"Derp-Fast-Start: 1\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((b"HTTP/1.1 404 Not", b" Found\r\nX: y"), "upgrade to DERP: HTTP/1.1 404 Not Found"),
        ((b"HTTP/1.1 4\x1b04\r\n",), r"upgrade to DERP: 'HTTP/1.1 4\x1b04'"),
        ((b"HTTP/1.1 404\n" * 99,), "upgrade to DERP: 'HTTP/1.1 404"),
        ((b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and so on\r\n",), "does not speak DERP"),
        ((server_key(KEY)[:-1],), "does not speak DERP"),
        ((b"\x02" + server_key(KEY)[1:],), "does not speak DERP"),
        ((server_key(KEY).replace(b"DERP", b"DREP"),), "does not speak DERP"),
        ((), "ends the connection at the HTTP request"),
    ],
)
async def test_what_is_no_relay(listen: Listen, pieces: tuple[bytes, ...], words: str):
    with pytest.raises(NoDERP) as caught:
        await upgraded(await listen(saying(*pieces)))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


async def test_who_says_nothing_is_waited_for_until_the_deadline(
    listen: Listen, autojump_clock: MockClock
):
    with pytest.raises(NoDERP, match="does not answer the HTTP request"):
        await upgraded(await listen(silence), 3.0)
    assert trio.current_time() == pytest.approx(3.0)


async def test_the_pages_of_a_relay_that_relays_nothing(listen: Listen):
    async def probed(answer: Answer) -> None:
        where, deadline = await listen(answer), trio.current_time() + 20
        async with await probe.connect(where, deadline) as stream:
            await probe.latency_check(stream, where, "relay.example", deadline)

    await probed(saying(b"HTTP/1.1 200 OK\r\n\r\n"))
    with pytest.raises(NoDERP, match=r"answers a probe with HTTP/1\.1 503 Busy$"):
        await probed(saying(b"HTTP/1.1 503 Busy\r\n\r\n"))
    with pytest.raises(NoDERP, match="answers a probe with something other than HTTP"):
        await probed(saying(b"200 200"))


async def shaken(where: Endpoint, seconds: float = 20.0) -> None:
    deadline = trio.current_time() + seconds
    async with await probe.connect(where, deadline) as stream:
        await probe.handshake(stream, where, insecure(), "relay.example", deadline)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "does not speak TLS"),
        ((), "ends the connection instead of speaking TLS"),
        ((bytes.fromhex("15030300020250"),), "alert internal error"),
        ((bytes.fromhex("15030300020270"),), "unrecognized name"),
    ],
)
async def test_what_is_no_tls(listen: Listen, pieces: tuple[bytes, ...], words: str):
    with pytest.raises(NoTLS) as caught:
        await shaken(await listen(saying(*pieces)))
    assert words in str(caught.value)
    reasons = {"alert internal error": tlserrors.INTERNAL_ERROR}
    reasons["unrecognized name"] = tlserrors.UNRECOGNIZED_NAME
    assert caught.value.reason == reasons.get(words, "")


async def test_who_never_shakes_hands(listen: Listen, autojump_clock: MockClock):
    with pytest.raises(NoTLS, match="does not answer the TLS handshake"):
        await shaken(await listen(silence), 3.0)
    assert trio.current_time() == pytest.approx(3.0)


@pytest.fixture
def asked(nursery: trio.Nursery) -> Asked:
    """Ask for STUN where a function makes the answers; return how many requests came."""

    async def asked(answer: StunAnswer) -> int:
        count = 0

        async def serve(sock: trio.socket.SocketType) -> None:
            nonlocal count
            with sock:
                while True:
                    request, peer = await sock.recvfrom(2048)
                    count += 1
                    if (data := answer(request, peer)) is not None:
                        await sock.sendto(data, peer)

        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await sock.bind(("127.0.0.1", 0))
        nursery.start_soon(serve, sock)
        where = Endpoint("127.0.0.1", sock.getsockname()[1])
        await probe.stun(where, trio.current_time() + 1.8)
        return count

    return asked


def right(request: bytes, peer: tuple[str, int]) -> bytes:
    address = IPv4Address(peer[0])
    return build_binding_response(parse_binding_request(request), address, peer[1])


async def test_stun(asked: Asked, mock_clock: MockClock):
    assert await asked(right) == 1


async def test_a_lost_request_is_sent_again(
    asked: Asked, mock_clock: MockClock, nursery: trio.Nursery
):
    seen: list[bytes] = []

    async def time_passes() -> None:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(probe.STUN_AGAIN)

    def second(request: bytes, peer: tuple[str, int]) -> bytes | None:
        seen.append(request)
        if len(seen) == 2:
            return right(request, peer)
        nursery.start_soon(time_passes)
        return None

    assert await asked(second) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request, peer: b"hello", "something other than STUN"),
        (lambda request, peer: right(request, peer)[:-4], "something other than STUN"),
    ],
)
async def test_wrong_answers_to_stun(
    mock_clock: MockClock, asked: Asked, answer: StunAnswer, words: str
):
    with pytest.raises(NoSTUN, match=words):
        await asked(answer)


async def test_no_answer_to_stun(autojump_clock: MockClock, asked: Asked):
    with pytest.raises(NoSTUN, match="does not answer STUN"):
        await asked(lambda request, peer: None)


async def test_an_answer_to_another_request(asked: Asked, mock_clock: MockClock):
    def other(request: bytes, peer: tuple[str, int]) -> bytes:
        return build_binding_response(bytes(12), IPv4Address(peer[0]), peer[1])

    with pytest.raises(NoSTUN, match="STUN request that was not sent"):
        await asked(other)


async def test_nobody_answers_stun():
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        where = Endpoint("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(NoSTUN, match=r"^UDP 127\.0\.0\.1:\d+: connection refused$"):
        await probe.stun(where, trio.current_time() + 20)
