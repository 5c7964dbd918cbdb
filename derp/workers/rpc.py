"""Calls between the supervisor and a worker, each with an answer.

    length, 4 bytes, big endian │ JSON in UTF-8

    {"id": 7, "what": "admission.admit", "body": …}      a call
    {"re": 7, "body": …}                            its answer
    {"re": 7, "error": "one line"}                  or why there is none

Both ends may call. The connection is a socket pair that no other process has, so messages are
trusted.
"""

import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from derp import log
from derp.errors import DerperError, RPCFailed, RPCTimeout

CALL_TIMEOUT: Final = 10.0
"""Seconds until a call without an answer fails."""

Json = Any
"""Any value that JSON has."""
Handler = Callable[[Json], Awaitable[Json]]
"""Answers a call: takes its body, and returns the answer's. Raises DerperError to refuse."""
Call = Callable[[str, Json], Awaitable[Json]]
"""RPC.call of a worker, which asks the supervisor. Raises RPCFailed."""

_LENGTH = struct.Struct(">I")
_QUEUED: Final = 64
"""Messages that may wait to be written."""
_IN_ORDER: Final = 1024
"""Calls that may wait to be answered in their order."""
_RECEIVE_SIZE: Final = 64 << 10

logger = log.get("workers")


@attrs.define(eq=False)
class _Call:
    """A call that waits for its answer."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    answer: dict[str, Json] | None = None
    """None where the other process has ended."""


class RPC:
    """One end of an RPC connection. Handlers are called from the start of `run` on."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over one socket of a pair."""
        self.handlers: dict[str, Handler] = {}
        """Handlers that may wait; each call has a task of its own."""
        self.in_order: dict[str, Handler] = {}
        """Handlers of calls that report a state: answered one by one, in the order of the calls."""
        self._sock = sock
        self._to_writer, self._outgoing = trio.open_memory_channel[bytes](_QUEUED)
        self._to_answerer, self._incoming = trio.open_memory_channel[dict[str, Json]](_IN_ORDER)
        self._calls: dict[int, _Call] = {}
        self._last_id = 0

    async def call(self, what: str, body: Json = None) -> Json:
        """Return the other end's answer. Raises RPCFailed if it has ended or refuses.

        Raises RPCTimeout if it is late.
        """
        self._last_id += 1
        number, call = self._last_id, _Call()
        self._calls[number] = call
        try:
            with trio.move_on_after(CALL_TIMEOUT):
                await self._send({"id": number, "what": what, "body": body})
                await call.ended.wait()
        finally:
            del self._calls[number]
        if not call.ended.is_set():
            raise RPCTimeout(f"{what} was not answered within {CALL_TIMEOUT:.0f} s")
        if call.answer is None:
            raise RPCFailed(f"the other process ended before it answered {what}")
        if "error" in call.answer:
            raise RPCFailed(f"{what}: {call.answer['error']}")
        return call.answer["body"]

    async def run(self) -> None:
        """Carry calls and answers until the other end is closed."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream)
                nursery.start_soon(self._answer_in_order)
                await self._read(stream, nursery)
                nursery.cancel_scope.cancel()
        finally:
            for call in self._calls.values():
                call.ended.set()
            self._outgoing.close()
            await trio.aclose_forcefully(stream)

    async def _read(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        received = bytearray()
        while True:
            try:
                data = await stream.receive_some(_RECEIVE_SIZE)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            received += data
            while (message := _next_message(received)) is not None:
                if message.get("what") in self.in_order:
                    await self._to_answerer.send(message)
                elif "re" not in message:
                    nursery.start_soon(self._answer, message, self.handlers)
                elif (call := self._calls.get(message["re"])) is not None:
                    call.answer = message
                    call.ended.set()

    async def _answer_in_order(self) -> None:
        async for call in self._incoming:
            await self._answer(call, self.in_order)

    async def _answer(self, call: dict[str, Json], handlers: dict[str, Handler]) -> None:
        what = call["what"]
        answer: dict[str, Json] = {"re": call["id"]}
        try:
            answer["body"] = await handlers[what](call["body"])
        except DerperError as error:
            answer["error"] = str(error)
        except Exception as error:
            # A bug must end this call only, and be logged.
            logger.exception("a call was ended by a bug", what=what)
            answer["error"] = repr(error)
        await self._send(answer)

    async def _send(self, message: dict[str, Json]) -> None:
        try:
            await self._to_writer.send(_packed(message))
        except trio.BrokenResourceError as error:
            raise RPCFailed("the other process has ended") from error

    async def _write(self, stream: trio.SocketStream) -> None:
        async for data in self._outgoing:
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                # The reader sees the end as well, and ends `run`.
                return


def send_first(sock: socket.socket, message: Json) -> None:
    """Send a message that fits into the socket's buffer, before an RPC has it. Never blocks."""
    sock.setblocking(False)
    sock.sendall(_packed(message))


def receive_first(sock: socket.socket) -> Json:
    """Return the message of `send_first`. Blocks. Raises RPCFailed."""
    sock.setblocking(True)
    with sock.makefile("rb", buffering=0) as stream:

        def read(size: int) -> bytes:
            received = b""
            while len(received) < size:
                data = stream.read(size - len(received))
                if not data:
                    raise RPCFailed("the other process ended before its first message")
                received += data
            return received

        return json.loads(read(_LENGTH.unpack(read(_LENGTH.size))[0]))


def _packed(message: Json) -> bytes:
    text = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text


def _next_message(received: bytearray) -> dict[str, Json] | None:
    """Take the first whole message off `received`; None while there is none."""
    if len(received) < _LENGTH.size:
        return None
    stop = _LENGTH.size + _LENGTH.unpack_from(received)[0]
    if len(received) < stop:
        return None
    message: dict[str, Json] = json.loads(received[_LENGTH.size : stop])
    del received[:stop]
    return message
