"""The login at another relay: what it may say, and how it may end."""

from collections.abc import Awaitable, Callable

import nacl.public
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import NoLink
from derp.mesh.login import log_in
from derp.session.state import RelayState
from tests.memory_transport import memory_pair
from tests.mesh.other import MAGIC, PONG, Call, present
from tests.peers import frame
from tests.relays import MESH_KEY

SAME_KEY = "is the mesh key the same on both relays?"
A_RELAY = "is it a DERP relay?"
Script = Callable[[Call], Awaitable[object]]


async def attempt(
    script: Script, *, mesh_key: bytes | None = MESH_KEY, ours: bool = False, received: bytes = b""
) -> tuple[RelayState, Call, tuple[bytes, bytes] | None]:
    """Log in at a relay that acts as `script` says; `ours`: it has the key of this one."""
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        private = nacl.public.PrivateKey.generate()
        state = RelayState(private, nursery, 2.0, mesh_key=mesh_key)
        call = Call(there, private if ours else nacl.public.PrivateKey.generate())
        nursery.start_soon(script, call)
        found = await log_in(state, here, received)
    return state, call, found


async def failure(script: Script) -> tuple[str, str | None]:
    with pytest.raises(ExceptionGroup) as caught:
        await attempt(script)
    (error,) = caught.value.exceptions
    assert isinstance(error, NoLink)
    return str(error), error.cure


async def test_a_login(autojump_clock: trio.testing.MockClock) -> None:
    async def script(call: Call) -> None:
        await call.greet()
        await call.welcome(present(bytes(32)))

    state, call, found = await attempt(script)
    assert found == (call.key, present(bytes(32)) + frame(PONG, bytes(8)))
    assert call.caller == state.public_key
    assert call.info == {"meshKey": MESH_KEY.hex(), "version": 2, "CanAckPings": True}


@pytest.mark.parametrize("worker", [False, True])
async def test_workers_show_each_other_another_secret(
    autojump_clock: trio.testing.MockClock, worker: bool
) -> None:
    secret = bytes(range(32))
    here, there = memory_pair()
    private = nacl.public.PrivateKey.generate()
    call = Call(there, private if worker else nacl.public.PrivateKey.generate())

    async def script() -> None:
        await call.greet()
        await call.welcome()

    async with trio.open_nursery() as nursery:
        state = RelayState(private, nursery, 2.0, mesh_key=MESH_KEY)
        state.become_worker(0, secret)
        nursery.start_soon(script)
        found = await log_in(state, here, b"", worker_key=secret if worker else None)
    assert found == (call.key, frame(PONG, bytes(8)))
    assert call.info["meshKey"] == (secret if worker else MESH_KEY).hex()


async def test_a_relay_with_another_key_is_no_worker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here, there = memory_pair()
    call = Call(there, nacl.public.PrivateKey.generate())
    await call.send(0x01, MAGIC + call.key)
    async with trio.open_nursery() as nursery:
        private = nacl.public.PrivateKey.generate()
        state = RelayState(private, nursery, 2.0, mesh_key=MESH_KEY)
        state.become_worker(0, bytes(range(32)))
        with pytest.raises(NoLink, match="the greeting is not that of a worker of this relay"):
            await log_in(state, here, b"", worker_key=bytes(range(32)))
    assert not call.end._inbox


async def test_a_login_in_pieces_of_a_byte(autojump_clock: trio.testing.MockClock) -> None:
    async def script(call: Call) -> None:
        send = call.end.send

        async def piecemeal(data: bytes) -> None:
            for byte in data:
                await send(bytes((byte,)))
                await trio.testing.wait_all_tasks_blocked()

        call.end.send = piecemeal  # type: ignore[method-assign]
        await call.greet()
        await call.welcome()

    _, call, found = await attempt(script)
    assert found is not None
    assert found[0] == call.key
    # The first byte behind the login will do.
    assert found[1] == bytes((PONG,))


async def test_bytes_that_came_with_the_upgrade_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    other = nacl.public.PrivateKey.generate()
    greeting = frame(0x01, MAGIC + bytes(other.public_key) + b"of a later version")
    here, there = memory_pair()

    async def script() -> None:
        call = Call(there, other)
        kind, payload = await call.receive()
        assert kind == 0x02
        call.caller = payload[:32]
        await call.welcome()

    async with trio.open_nursery() as nursery:
        state = RelayState(nacl.public.PrivateKey.generate(), nursery, 2.0, mesh_key=MESH_KEY)
        nursery.start_soon(script)
        found = await log_in(state, here, greeting)
    assert found == (bytes(other.public_key), frame(PONG, bytes(8)))


async def test_this_relay_itself(autojump_clock: trio.testing.MockClock) -> None:
    async def script(call: Call) -> None:
        await call.send(0x01, MAGIC + call.key)

    _, call, found = await attempt(script, ours=True)
    assert found is None
    # Nothing is said to it, least of all the mesh key.
    assert not call.end._inbox


async def hang_up(call: Call) -> None:
    call.hang_up()


async def reset(call: Call) -> None:
    call.end.abort()


async def silent(call: Call) -> None:
    """Say nothing."""


def saying(data: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.end.send(data)

    return script


@pytest.mark.parametrize(
    ("script", "reason", "cure"),
    [
        (hang_up, "it does not greet: the connection was closed", A_RELAY),
        (reset, "it does not greet: the connection was reset", A_RELAY),
        (silent, "no DERP login within 10 s", None),
        (
            saying(b"HTTP/1.1 200 OK\r\n"),
            "it does not greet: frame of type 0x48, expected ",
            A_RELAY,
        ),
        (saying(frame(0x01, MAGIC)), "the greeting is not that of a DERP server", A_RELAY),
        (saying(frame(0x01, bytes(40))), "the greeting is not that of a DERP server", A_RELAY),
        (
            saying(b"\x01\x00\x00\x04\x01"),
            "it does not greet: SERVER_KEY frame of 1025 bytes",
            A_RELAY,
        ),
        (saying(frame(0x01, MAGIC + bytes(32))), "the server's key is no public key", A_RELAY),
        (saying(b"\x01\x00"), "no DERP login within 10 s", None),
    ],
)
async def test_no_greeting(
    autojump_clock: trio.testing.MockClock, script: Script, reason: str, cure: str | None
) -> None:
    found = await failure(script)
    assert found[0].startswith(reason)
    assert found[1] == cure


def after_greeting(*steps: Script) -> Script:
    async def script(call: Call) -> None:
        await call.greet()
        for step in steps:
            await step(call)

    return script


async def let_in(call: Call) -> None:
    await call.end.send(frame(0x03, bytes(call.box.encrypt(b"{}"))))


@pytest.mark.parametrize(
    ("steps", "reason", "cure"),
    [
        ([hang_up], "it refuses the login: the connection was closed", SAME_KEY),
        ([reset], "it refuses the login: the connection was reset", SAME_KEY),
        ([silent], "no DERP login within 10 s", None),
        (
            [saying(frame(0x03, bytes(100)))],
            "server info does not open with the server's ",
            A_RELAY,
        ),
        ([saying(frame(0x03, b""))], "server info does not open with the server's key", A_RELAY),
        (
            [saying(b"\x03\x00\x01\x00\x01")],
            "SERVER_INFO frame of 65537 bytes is too long",
            A_RELAY,
        ),
        ([saying(frame(0x06, b""))], "frame of type 0x06, expected SERVER_INFO", A_RELAY),
        ([saying(frame(0x14, b"not you"))], "it refuses the login: 'not you'", SAME_KEY),
        ([saying(frame(0x14, b"\n\xff" * 99))], "it refuses the login: '\\n\ufffd", SAME_KEY),
        ([let_in, hang_up], "it refuses to be watched: the connection was ", SAME_KEY),
        ([let_in, reset], "it refuses ", SAME_KEY),
        ([let_in, silent], "no DERP login within 10 s", None),
    ],
)
async def test_no_welcome(
    autojump_clock: trio.testing.MockClock, steps: list[Script], reason: str, cure: str | None
) -> None:
    found = await failure(after_greeting(*steps))
    assert found[0].startswith(reason)
    assert found[1] == cure


@given(st.binary(max_size=120), st.booleans())
def test_any_greeting(data: bytes, is_key: bool) -> None:
    async def main() -> None:
        here, there = memory_pair()
        async with trio.open_nursery() as nursery:
            state = RelayState(nacl.public.PrivateKey.generate(), nursery, 2.0, mesh_key=MESH_KEY)
            await there.send(frame(0x01, MAGIC + data) if is_key else data)
            there.close()
            with pytest.raises(NoLink):
                await log_in(state, here, b"")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
