"""The clients: they connect, send each other packets, come and go, and count.

    python -m tests.chaos.load FILE

FILE is a JSON object, see `Plan`. Each line of standard input is an order, a JSON object with `do`;
each order has a line of standard output as its answer. It ends with its standard input.

    say      {"inside": [NUMBER...], "cut": N, ...}: who is in now, and the counts so far
    belong   tells `who` belongs in from now on: others are sent nothing, and are missed by nobody
    churn    sets `rate`: clients that leave in a second, and come back
    traffic  sets `rate`: packets in a second, of all together
    reach    every client that is in sends to the next one until it arrives; {"lost": [[A, B]...]}
    leave    all leave in good order; {} once the relay has closed each
    counts   by client: the bytes that it sent in all; those of connections that were logged in,
             each time that they have changed; when its connections ended

Times are seconds of the monotonic clock, which all processes share.
"""

import contextlib
import itertools
import json
import random
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import nacl.public
import trio

from tests.peers import RECV, Peer
from tests.process import insecure
from tests.support.derp import FAST_START, UPGRADE, upgrade_request
from tests.support.ends import StreamEnd

LOGINS_AT_ONCE = 20
LOGIN_SECONDS = 15.0
FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0
"""Seconds before the next try after a connection: Tailscale's clients wait as long, about."""
STRANGERS_WAIT, STRANGERS_A_SECOND = 5.0, 10.0
"""Seconds before the next try of who doesn't belong in; tries of all of them together."""
LEAVE_SECONDS = 20.0
REACH_SECONDS = 30.0
REACH_AGAIN = 0.5
KEEP_ALIVE_PATIENCE = 150.0
"""Seconds in which a relay says something: it sends a keep-alive a minute."""
HEAD = struct.Struct("<8s8sQ")
"""In a packet: the beginnings of the keys of sender and receiver, its number; then filler."""
LONGEST = 1200
BROKEN = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen
class Plan:
    """What the clients are to do."""

    seed: int
    relays: list[tuple[str, int, str]]
    """The address of each relay, its port, and its name."""
    clients: list[tuple[str, int, bool]]
    """Of each client: its private key (hex), the number of its relay, whether it belongs there."""
    traffic: float
    """Packets in a second, of all together."""


class Counted(trio.abc.Stream):
    """A stream that counts what is sent into it, before it is sent."""

    def __init__(self, stream: trio.SocketStream, count: "Client") -> None:
        self.stream = stream
        self._client = count

    async def send_all(self, data: Any) -> None:
        self._client.sent += len(data)
        self._client.sent_here += len(data)
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.stream.aclose()


class Client:
    """One client: a key that is connected again and again."""

    def __init__(self, crowd: "Crowd", number: int, key: str, relay: int, belongs: bool) -> None:
        self.crowd = crowd
        self.number = number
        self.private = nacl.public.PrivateKey(bytes.fromhex(key))
        self.key = bytes(self.private.public_key)
        self.relay = relay
        self.belongs = belongs
        self.sent = self.sent_here = self.counted = 0
        """Bytes sent in all; on this connection; up to now by connections that were logged in."""
        self.samples: list[tuple[float, int]] = [(0.0, 0)]
        self.peer: Peer | None = None
        """While it is logged in."""
        self.stream: Counted | None = None
        self.leaving = False
        self.gone = trio.Event()
        self.came: set[int] = set()
        """The numbers of packets that have come."""
        self.reached = trio.Event()
        self.writing = False
        self.cuts: list[float] = []
        """When its connections ended, other than by leaving."""

    async def live(self) -> None:
        """Connect, and connect again, until it is told to leave."""
        wait = FIRST_WAIT
        while not self.leaving:
            was_in = await self._connect()
            wait = FIRST_WAIT if was_in else min(2 * wait, LONGEST_WAIT)
            if not was_in and not self.belongs:
                wait = self.crowd.strangers_wait
            if not self.leaving:
                await trio.sleep(wait * self.crowd.chance.uniform(0.5, 1.0))
        self.gone.set()

    async def _connect(self) -> bool:
        """Log in and read to the end of the connection; return whether it was logged in."""
        self.stream, self.sent_here = None, 0
        was_in = False
        try:
            peer = await self._log_in()
            was_in, self.peer = True, peer
            self.counted += self.sent_here
            while True:
                self._take(*await peer.receive())
        except BROKEN:
            pass
        except trio.TooSlowError:
            self.crowd.slow += 1
        finally:
            self.cuts.append(time.monotonic())
            self.crowd.cut += was_in and not self.leaving and not self.crowd.is_churned(self)
            self.peer = None
            if self.stream is not None:
                with contextlib.suppress(OSError):
                    await trio.aclose_forcefully(self.stream)
        return was_in

    async def _log_in(self) -> Peer:
        """Raises OSError, EOFError, BrokenResourceError and TooSlowError."""
        async with self.crowd.logins:
            with trio.fail_after(LOGIN_SECONDS):
                host, port, name = self.crowd.plan.relays[self.relay]
                tcp = await trio.open_tcp_stream(host, port)
                self.stream = Counted(tcp, self)
                tls = trio.SSLStream(self.stream, self.crowd.context, server_hostname=name)
                peer = Peer(StreamEnd(tls, KEEP_ALIVE_PATIENCE), self.private)
                await tls.send_all(upgrade_request(*UPGRADE, FAST_START))
                return await peer.log_in()

    def _take(self, kind: int, payload: bytes) -> None:
        """Note a frame; a packet must be one that was sent to this client, and come once."""
        if kind != RECV:
            return
        source, packet = payload[:32], payload[32:]
        sender, receiver, number = HEAD.unpack_from(packet)
        if receiver != self.key[:8] or sender != source[:8]:
            self.crowd.wrong.append(f"client {self.number} got a packet for another one")
        elif packet[HEAD.size :] != filler(number, len(packet)):
            self.crowd.wrong.append(f"client {self.number} got a packet that was altered")
        elif number in self.came:
            self.crowd.wrong.append(f"client {self.number} got packet {number} twice")
        self.came.add(number)
        self.crowd.received += not number % 2
        self.reached.set()

    async def send(self, number: int, to: "Client") -> None:
        """Send the packet of this number, if it is in; what fails is found by whoever reads."""
        peer, stream, before = self.peer, self.stream, self.sent_here
        if peer is None or stream is None or self.writing:
            return
        head = HEAD.pack(self.key[:8], to.key[:8], number)
        packet = head + filler(number, HEAD.size + number * 7919 % LONGEST)
        self.writing = True
        with contextlib.suppress(*BROKEN), trio.move_on_after(LOGIN_SECONDS) as late:
            await peer.send_packet(to.key, packet)
        if late.cancelled_caught:
            # A frame may be cut off: this connection is of no use any more.
            await trio.aclose_forcefully(stream)
        self.writing = False
        if self.stream is stream:
            self.counted += self.sent_here - before

    def sample(self, now: float) -> None:
        if self.samples[-1][1] != self.counted:
            self.samples.append((round(now, 2), self.counted))

    async def leave(self) -> None:
        """End the connection; the relay's end of stream says that it has read all."""
        self.leaving = True
        if self.stream is not None and self.peer is not None:
            with contextlib.suppress(*BROKEN):
                await self.stream.stream.send_eof()
        with trio.move_on_after(LEAVE_SECONDS):
            await self.gone.wait()


def filler(number: int, size: int) -> bytes:
    return number.to_bytes(8) * ((size - HEAD.size) // 8)


class Crowd:
    """All clients, and what they have in common."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.context = insecure()
        self.logins = trio.CapacityLimiter(LOGINS_AT_ONCE)
        self.packets, self.probes = itertools.count(2, 2), itertools.count(1, 2)
        """Numbers of packets, by which those of `reach` are told from all others."""
        self.clients = [Client(self, n, *client) for n, client in enumerate(plan.clients)]
        self.traffic, self.churn = plan.traffic, 0.0
        self.sent = self.received = self.cut = self.slow = 0
        strangers = sum(not client.belongs for client in self.clients)
        self.strangers_wait = max(STRANGERS_WAIT, strangers / STRANGERS_A_SECOND)
        self.wrong: list[str] = []
        self.out_seconds = 0.0
        self._churned: set[Client] = set()

    def is_churned(self, client: Client) -> bool:
        """Whether the connection of a client was ended on purpose; forget it."""
        was = client in self._churned
        self._churned.discard(client)
        return was

    async def send_for_ever(self) -> None:
        """Send packets on a schedule that does not wait for the relay."""
        next_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            while True:
                if not self.traffic:
                    await trio.sleep(0.1)
                    next_at = trio.current_time()
                    continue
                next_at = max(next_at + 1 / self.traffic, trio.current_time() - 1)
                await trio.sleep_until(next_at)
                one, other = self.chance.choices(self.clients, k=2)
                if one.peer is not None and other.belongs and one is not other:
                    self.sent += 1
                    nursery.start_soon(one.send, next(self.packets), other)

    async def churn_for_ever(self) -> None:
        """End connections: half of them in good order, half with a reset."""
        while True:
            await trio.sleep(1 / self.churn if self.churn else 0.2)
            client = self.chance.choice(self.clients)
            if not self.churn or client.peer is None or client.stream is None:
                continue
            self._churned.add(client)
            sock = client.stream.stream.socket
            with contextlib.suppress(OSError):
                if self.chance.random() < 0.5:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
                await trio.aclose_forcefully(client.stream)

    async def sample_for_ever(self) -> None:
        """Note once a second what each has counted, and who is out."""
        before = trio.current_time()
        while True:
            await trio.sleep(1.0)
            now = trio.current_time()
            out = sum(client.belongs and client.peer is None for client in self.clients)
            self.out_seconds += out * (now - before)
            before = now
            for client in self.clients:
                client.sample(time.monotonic())

    async def reach(self) -> list[tuple[int, int]]:
        """Have each that is in send to the next one; return the pairs of which none arrived."""
        inside = [client for client in self.clients if client.peer is not None]
        lost: list[tuple[int, int]] = []

        async def try_pair(one: Client, other: Client) -> None:
            other.reached = trio.Event()
            with trio.move_on_after(REACH_SECONDS):
                while not other.reached.is_set():
                    await one.send(next(self.probes), other)
                    with trio.move_on_after(REACH_AGAIN):
                        await other.reached.wait()
                return
            lost.append((one.number, other.number))

        async with trio.open_nursery() as nursery:
            for one, other in zip(inside, inside[1:] + inside[:1], strict=True):
                nursery.start_soon(try_pair, one, other)
        return lost

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what an order says; return the answer."""
        match order["do"]:
            case "say":
                return {
                    "inside": [each.number for each in self.clients if each.peer is not None],
                    "cut": self.cut,
                    "slow": self.slow,
                    "sent": self.sent,
                    "received": self.received,
                    "wrong": self.wrong[:20],
                    "out_seconds": self.out_seconds,
                }
            case "belong":
                for client in self.clients:
                    client.belongs = client.number in order["who"]
            case "churn":
                self.churn = order["rate"]
            case "traffic":
                self.traffic = order["rate"]
            case "reach":
                return {"lost": await self.reach()}
            case "leave":
                async with trio.open_nursery() as nursery:
                    for client in self.clients:
                        nursery.start_soon(client.leave)
            case "counts":
                for client in self.clients:
                    client.sample(time.monotonic())
                return {
                    "counts": [client.samples for client in self.clients],
                    "cuts": [client.cuts for client in self.clients],
                    "sent": [client.sent for client in self.clients],
                }
        return {}


async def main(plan: Plan) -> None:
    crowd = Crowd(plan)
    orders = trio.lowlevel.FdStream(0)
    async with trio.open_nursery() as nursery:
        for task in (crowd.send_for_ever, crowd.churn_for_ever, crowd.sample_for_ever):
            nursery.start_soon(task)
        for client in crowd.clients:
            nursery.start_soon(client.live)
        text = b""
        async for data in orders:
            text += data
            while b"\n" in text:
                line, _, text = text.partition(b"\n")
                print(json.dumps(await crowd.obey(json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    trio.run(main, Plan(**json.loads(Path(sys.argv[1]).read_text())))
