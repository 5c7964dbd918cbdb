"""The control socket: who may ask, what is answered, and what bad requests get."""

import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from derp.admission import allowlist
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.listkeeper import ListRequest, keep_list
from derp.admission.policysource import PolicySource
from derp.admission.refusals import Refusal
from derp.admission.sources import Sources
from derp.errors import RPCFailed, SteeringFailed
from derp.metrics import Metrics
from derp.net.address import Endpoint
from derp.net.descriptors import Descriptors
from derp.policy.change import Change
from derp.policy.model import Entry, Policy
from derp.service import control
from derp.service.clients import CLIENTS_PER_PAGE, ClientStatus, Listing
from derp.service.control import (
    ANSWER_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_WHEN_FULL,
    REQUEST_TIMEOUT,
    REQUESTS,
    REQUESTS_BURST,
    WARN_EVERY,
    ControlBackend,
    ControlServer,
    RefusedKeys,
)
from derp.service.keybook import KeyBook
from derp.service.steering import Steered
from derp.wire.control import MAX_REQUEST, Command, Request
from derp.wire.keys import node_public_text
from tests.support.threads import run_at_once

Clock = trio.testing.MockClock
BY = f"uid {os.geteuid()}, pid {os.getpid()}"
HERE = Endpoint("127.0.0.1", 0)


def client(number: int, **changes: Any) -> ClientStatus:
    fields: dict[str, Any] = {
        field.name: 0 if field.type is int else "" for field in attrs.fields(ClientStatus)
    }
    fields |= dict.fromkeys(("home", "mesh", "duplicate"), False)
    fields |= dict.fromkeys(("limit", "used_day", "used_month", "quota"))
    fields |= {"key": number.to_bytes(32, "big"), "connection": str(number)}
    return ClientStatus(**(fields | changes))


class Steering:
    """Notes what is wanted."""

    def __init__(self) -> None:
        self.wanted: list[tuple[Command, str]] = []
        self.fault: Exception | None = None

    async def steer(self, command: Command, by: str) -> Steered:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        self.wanted.append((command, by))
        return Steered("done so", 2)


class Asker:
    """The other end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> dict[str, Any] | None:
        """The next line; None at the end."""
        while b"\n" not in self._received:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                assert not self._received
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        found = json.loads(line)
        assert found.pop("v") == 1
        return found

    async def ask(self, request: Request) -> dict[str, Any] | None:
        await self.send(request.to_line())
        return await self.answer()


class Server:
    """A server, and what it is asked about."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.sockets = ExitStack()
        self.clients = [client(number) for number in (1, 2)]
        self.listed = 0
        self.source = PolicySource(None, Policy())
        self.steering = Steering()
        self.refused: list[Refusal] = []

        self.silent: list[int] = []

        async def clients() -> Listing:
            await trio.lowlevel.checkpoint()
            self.listed += 1
            return Listing(self.clients, self.silent)

        async def refused() -> RefusedKeys:
            await trio.lowlevel.checkpoint()
            return RefusedKeys(self.refused, self.silent)

        relay = ControlBackend(clients, KeyBook(self.source), self.steering.steer, refused)
        self.server = ControlServer(relay=relay, users={os.geteuid()}, nursery=nursery)

    def connect(self, *, full: bool = False) -> Asker:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.sockets.enter_context(ours)
        theirs.setblocking(False)
        self.taken = self.server.accept(theirs, HERE, full=full)
        return Asker(ours)


@pytest.fixture
async def server(autojump_clock: Clock) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        found = Server(nursery)
        with found.sockets:
            yield found
        nursery.cancel_scope.cancel()


class TestWhatIsAsked:
    async def test_the_clients(self, autojump_clock: Clock, server: Server) -> None:
        server.clients = [client(1, since=7, used_day=3, home=True)]
        server.source.policy = Policy({client(1).key: Entry(label="x")})
        found = await server.connect().ask(Request("clients"))
        assert found is not None
        (row,) = found["clients"]
        assert not found["more"]
        assert row["key"] == node_public_text(client(1).key)
        assert (row["label"], row["since"], row["used_day"], row["home"]) == ("x", 7, 3, True)
        assert row["limit"] is None

    async def test_many_clients_are_many_lines(self, autojump_clock: Clock, server: Server) -> None:
        server.clients = [client(number) for number in range(2 * CLIENTS_PER_PAGE + 1)]
        asker = server.connect()
        await asker.send(Request("clients").to_line())
        lines = [await asker.answer() for _ in range(3)]
        assert [len(line["clients"]) for line in lines] == [CLIENTS_PER_PAGE, CLIENTS_PER_PAGE, 1]
        assert [line["more"] for line in lines] == [True, True, False]
        server.clients = []
        assert await asker.ask(Request("clients")) == {"clients": [], "more": False, "silent": []}

    async def test_the_keys_and_what_says_so(self, autojump_clock: Clock, server: Server) -> None:
        here, by_command = client(1).key, client(2).key
        server.source.put(Policy({here: Entry("printer", allowed=True), bytes(32): Entry("x")}))
        server.source.change(Change(by_command, allowed=False, label="phone"), None)
        found = await server.connect().ask(Request("keys"))
        assert found == {
            "keys": [
                {
                    "key": node_public_text(here),
                    "label": "printer",
                    "allowed": True,
                    "source": "policy",
                },
                {
                    "key": node_public_text(by_command),
                    "label": "phone",
                    "allowed": False,
                    "source": "command",
                },
            ],
            "more": False,
        }

    async def test_the_refused(self, autojump_clock: Clock, server: Server) -> None:
        key = client(1).key
        server.source.policy = Policy({key: Entry("phone", allowed=False)})
        server.refused = [Refusal(key, 2, 7.0, "192.0.2.7", "policy", "the key is denied")]
        assert await server.connect().ask(Request("refused")) == {
            "refused": [
                {
                    "key": node_public_text(key),
                    "count": 2,
                    "last": 7.0,
                    "address": "192.0.2.7",
                    "source": "policy",
                    "reason": "the key is denied",
                    "label": "phone",
                }
            ],
            "more": False,
            "silent": [],
        }
        server.refused, server.silent = [], [1]
        assert await server.connect().ask(Request("refused")) == {
            "refused": [],
            "more": False,
            "silent": [1],
        }

    async def test_a_refused_key_is_named_by_the_whole_of_it(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        """A stranger can make one that begins like another."""
        stranger = bytes([0xAB]) * 32
        server.refused = [Refusal(stranger, 1, 7.0, "192.0.2.7", "file", "")]
        asker = server.connect()
        found = await asker.ask(Request("allow", "abababababab"))
        assert found is not None
        assert "no client that is connected" in found["error"]
        await asker.ask(Request("allow", node_public_text(stranger), label="x"))
        assert server.steering.wanted == [(Command("allow", stranger, label="x"), BY)]

    async def test_a_list_is_filled(
        self,
        autojump_clock: Clock,
        server: Server,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run_at_once(monkeypatch)
        monkeypatch.setattr("derp.files.rewrite.SETTLED_AFTER", 0.0)
        old, new = client(1).key, client(2).key
        path = tmp_path / "nodekeys"
        path.write_text(f"{node_public_text(old)} mine\n")
        asker = server.connect()
        request = Request("list", keys={node_public_text(old): "x", node_public_text(new): "y"})
        found = await asker.ask(request)
        assert found == {
            "error": "the relay has no list of keys; start it with -verify-client-file"
        }
        listed = AllowList(path, allowlist.load(path))
        checker = Checker(Metrics(), Sources(allowlist=listed))
        to_list, requests = trio.open_memory_channel[ListRequest](1)
        relay = attrs.evolve(
            server.server.relay, book=KeyBook(server.source, checker), to_list=to_list
        )
        server.server.relay = relay

        async def nobody(_: object) -> None:
            await trio.lowlevel.checkpoint()

        server.server.nursery.start_soon(keep_list, checker, listed, requests, nobody)
        found = await asker.ask(request)
        assert found == {"done": "1 key is added", "added": [node_public_text(new)]}
        assert listed.keys == {old: "mine", new: "y"}
        for keys, message in (
            ({"nodekey:1": ""}, "no key was added: the key has 1 hex digits"),
            ({node_public_text(old): "a # b"}, "no key was added: want a label without"),
        ):
            found = await asker.ask(Request("list", keys=keys))
            assert found is not None
            assert found["error"].startswith(message)
        path.unlink()
        found = await asker.ask(request)
        assert found is not None
        assert "No such file" in found["error"]
        rows = await asker.ask(Request("keys"))
        assert rows is not None
        assert [row["source"] for row in rows["keys"]] == ["file", "file"]

    async def test_what_is_done_to_a_client(self, autojump_clock: Clock, server: Server) -> None:
        asker, key = server.connect(), client(1).key
        text = node_public_text(key)
        for do in ("kick", "deny", "allow"):
            assert await asker.ask(Request(do, text)) == {"done": "done so", "ended": 2}
        await asker.ask(Request("limit", text, "1 MB/s"))
        await asker.ask(Request("limit", text))
        assert server.steering.wanted == [
            (Command("kick", key), BY),
            (Command("deny", key), BY),
            (Command("allow", key), BY),
            (Command("limit", key, "1 MB/s"), BY),
            (Command("limit", key), BY),
        ]

    async def test_a_client_by_its_label_or_beginning(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        server.source.policy = Policy({bytes(32): Entry(label="printer")})
        asker = server.connect()
        await asker.ask(Request("deny", "printer"))
        await asker.ask(Request("kick", "0" * 63 + "2"))
        assert [command for command, _ in server.steering.wanted] == [
            Command("deny", bytes(32)),
            Command("kick", client(2).key),
        ]
        found = await asker.ask(Request("kick", "0000"))
        assert found is not None
        assert "0000: the beginning of nodekey:00" in found["error"]

    async def test_what_fails_is_told_and_the_next_is_answered(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        asker, text = server.connect(), node_public_text(bytes(32))
        for fault in (SteeringFailed("it is stopping"), RPCFailed("a process has ended")):
            server.steering.fault = fault
            assert await asker.ask(Request("kick", text)) == {"error": str(fault)}
        server.steering.fault = None
        assert await asker.ask(Request("kick", text)) == {"done": "done so", "ended": 2}

    async def test_a_beginning_means_nobody_while_workers_are_silent(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        server.silent = [0, 2]
        server.source.policy = Policy({bytes(32): Entry(label="printer")})
        asker = server.connect()
        assert await asker.ask(Request("clients")) == {
            **(await asker.ask(Request("clients")) or {}),
            "silent": [0, 2],
        }
        found = await asker.ask(Request("kick", "0" * 63 + "2"))
        assert found is not None
        assert "workers 0 and 2 did not answer, which may have another client" in found["error"]
        for name in ("printer", node_public_text(client(2).key)):
            assert await asker.ask(Request("kick", name)) == {"done": "done so", "ended": 2}


class TestWhoAsks:
    async def test_another_user_is_refused(
        self, autojump_clock: Clock, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.server.users = {1234, 1235}
        for _ in range(3):
            asker = server.connect()
            error = f"user {os.geteuid()} may not do this; run it as the user 1234 and 1235"
            assert await asker.answer() == {"error": error}
            assert await asker.answer() is None
        (record,) = caplog.records
        assert record.getMessage() == "refused at the control socket"
        assert record.__dict__["fields"] == {"by": BY}
        await trio.sleep(WARN_EVERY)
        await server.connect().answer()
        assert len(caplog.records) == 2

    async def test_where_the_system_does_not_tell_the_mode_decides(
        self, autojump_clock: Clock, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(socket, "SO_PEERCRED")
        await server.connect().ask(Request("kick", node_public_text(bytes(32))))
        assert server.steering.wanted[0][1] == "a user of this machine"


class TestBounds:
    @pytest.mark.parametrize(
        "data",
        [b"GET / HTTP/1.1\r\n", b"\n", b"\xff\xfe\n", b"x" * MAX_REQUEST, b"[" * 4000 + b"\n"],
    )
    async def test_garbage_is_answered_and_ends_the_connection(
        self, autojump_clock: Clock, server: Server, data: bytes
    ) -> None:
        asker = server.connect()
        await asker.send(data)
        found = await asker.answer()
        assert found is not None
        assert found["error"].startswith("want a line")
        assert await asker.answer() is None
        assert not server.listed

    async def test_an_endless_line_takes_no_memory(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        asker = server.connect()
        # More than the socket's buffers hold.
        with pytest.raises(trio.BrokenResourceError):
            await asker.send(b"x" * (64 << 20))

    async def test_a_slow_request_ends(self, autojump_clock: Clock, server: Server) -> None:
        asker = server.connect()
        began = trio.current_time()
        for byte in Request("clients").to_line()[:-1]:
            await asker.send(bytes([byte]))
            await trio.sleep(REQUEST_TIMEOUT / 50)
        found = await asker.answer()
        assert found == {"error": "no request within 60 s, or too many others"}
        assert await asker.answer() is None
        assert trio.current_time() - began == pytest.approx(REQUEST_TIMEOUT)

    async def test_who_reads_nothing_is_left(self, autojump_clock: Clock, server: Server) -> None:
        server.clients = [client(number, label="x" * 1000) for number in range(5000)]
        asker = server.connect()
        await asker.send(Request("clients").to_line())
        await trio.sleep(2 * ANSWER_TIMEOUT)
        assert server.server._count == 0

    async def test_the_longest_silent_gives_way_to_a_new_one(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        askers = []
        for _ in range(MAX_CONNECTIONS):
            askers.append(server.connect())
            await trio.sleep(1)
        # It has asked something since.
        await askers[0].ask(Request("clients"))
        assert await server.connect().ask(Request("clients")) is not None
        found = await askers[1].answer()
        assert found is not None
        assert "too many others" in found["error"]
        for number in (0, 2, MAX_CONNECTIONS - 1):
            assert await askers[number].ask(Request("clients")) is not None

    async def test_a_crowd_is_closed_at_once(self, autojump_clock: Clock, server: Server) -> None:
        taken = []
        for _ in range(5 * MAX_CONNECTIONS):
            asker = server.connect()
            taken.append(server.taken)
        assert taken.count(True) == 2 * MAX_CONNECTIONS
        assert await asker.answer() is None

    async def test_two_are_served_where_descriptors_are_few(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        taken = []
        for _ in range(2 * MAX_WHEN_FULL):
            server.connect(full=True)
            taken.append(server.taken)
        assert taken.count(True) == MAX_WHEN_FULL

    async def test_requests_have_a_rate(self, autojump_clock: Clock, server: Server) -> None:
        """Also if they all have come before the first is answered."""
        more = 30
        asker = server.connect()
        began = trio.current_time()
        line = Request("clients").to_line()
        await asker.send(line * (REQUESTS_BURST + more))
        for _ in range(REQUESTS_BURST + more):
            await asker.answer()
        assert trio.current_time() - began >= more / REQUESTS
        # A list of many clients counts as more.
        await trio.sleep(REQUEST_TIMEOUT / 2)
        server.clients = [client(number) for number in range(50 * control.CLIENTS_PER_REQUEST)]
        found, began = await asker.ask(Request("clients")), trio.current_time()
        while found is not None and found["more"]:
            found = await asker.answer()
        server.clients = []
        await asker.ask(Request("clients"))
        assert trio.current_time() - began > (50 - REQUESTS_BURST) / REQUESTS

    async def test_a_bug_ends_one_connection_and_is_logged(
        self, autojump_clock: Clock, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        asker, text = server.connect(), node_public_text(bytes(32))
        server.steering.fault = RuntimeError("a bug")
        assert await asker.ask(Request("kick", text)) is None
        server.steering.fault = None
        assert await server.connect().ask(Request("kick", text)) is not None
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info

    async def test_who_leaves_in_the_middle_is_forgotten(
        self, autojump_clock: Clock, server: Server
    ) -> None:
        for data in (b"", b'{"v"', Request("clients").to_line()):
            asker = server.connect()
            await asker.send(data)
            await asker.stream.aclose()
        await trio.sleep(1)
        assert server.server._count == 0
        assert not server.server._waiting


async def test_it_is_served_on_a_listening_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen()
        async with trio.open_nursery() as nursery:
            relay = Server(nursery).server.relay
            nursery.start_soon(control.serve, listener, relay, Descriptors())
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(Request("clients").to_line())
                assert b'"more":false' in await stream.receive_some(65536)
            nursery.cancel_scope.cancel()
