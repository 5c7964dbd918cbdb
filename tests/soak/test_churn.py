"""A thousand clients, ten of them killed at random each second: nothing may be left behind.

Run by `nox -s soak`; the time can be changed with DERPER_SOAK_SECONDS. The relay is a process of
its own; what it holds is read from its metrics and from /proc.
"""

import math
import os
import random
import re
import resource
import ssl
import struct
import urllib.request
from pathlib import Path

import trio

from tests.patience import PATIENCE
from tests.peers import RECV, Peer
from tests.process import Derper, derper, insecure
from tests.support.derp import FAST_START, UPGRADE, upgrade_request
from tests.support.ends import StreamEnd

CLIENTS = 1000
KILLS_A_SECOND = 10
SECONDS = float(os.environ.get("DERPER_SOAK_SECONDS", "60"))
LOGINS_AT_ONCE = 20
CONNECTIONS = "derp_current_connections"


class Client(Peer):
    """A logged-in client that counts and checks what it receives."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(StreamEnd(stream, math.inf))
        self.stream = stream
        self.received = 0

    async def read(self) -> None:
        """Read until this client is killed; every packet must be what its sender made."""
        while True:
            try:
                kind, payload = await self.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if kind == RECV:
                source, packet = payload[:32], payload[32:]
                assert packet == source * (len(packet) // 32)
                self.received += 1


class Crowd:
    """The clients, and the tasks that read for them."""

    def __init__(self, relay: Derper, server_key: bytes, nursery: trio.Nursery) -> None:
        self.port = relay.port("HTTPS")
        self.context = insecure()
        self.server_key = server_key
        self.nursery = nursery
        self.clients: list[Client] = []
        self._limit = trio.CapacityLimiter(LOGINS_AT_ONCE)

    async def add(self) -> None:
        async with self._limit:
            tcp = await trio.open_tcp_stream("127.0.0.1", self.port)
            stream = trio.SSLStream(tcp, self.context)
            client = Client(stream)
            request = upgrade_request(*UPGRADE, FAST_START)
            await stream.send_all(request + client.client_info(self.server_key))
            self.clients.append(client)
            self.nursery.start_soon(client.read)

    async def kill(self, chance: random.Random) -> None:
        """Close a connection without a word, or with a reset."""
        client = self.clients.pop(chance.randrange(len(self.clients)))
        sock = client.stream.transport_stream.socket
        if chance.random() < 0.5:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(client.stream)


def metric(relay: Derper, name: str) -> int:
    url = f"https://127.0.0.1:{relay.port('HTTPS')}/debug/varz"
    with urllib.request.urlopen(url, context=insecure(), timeout=20) as answer:
        page = answer.read().decode()
    match = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert match, name
    return int(float(match[1]))


def consistent(relay: Derper) -> bool:
    url = f"https://127.0.0.1:{relay.port('HTTPS')}/debug/check"
    with urllib.request.urlopen(url, context=insecure(), timeout=20) as answer:
        return bool(answer.status == 200)


def public_key(relay: Derper) -> bytes:
    """Read the relay's key from its metacert, as a fast-starting client does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://127.0.0.1:{relay.port('HTTPS')}/derp"
    request = urllib.request.Request(url, headers={"Upgrade": "derp"})
    try:
        urllib.request.urlopen(request, context=context, timeout=20)
    except urllib.error.HTTPError as answer:
        with answer:
            return bytes.fromhex(answer.headers["Derp-Public-Key"])
    raise AssertionError("no 101 answer")


async def settled(relay: Derper, name: str, value: int) -> None:
    """Wait until a metric has come down to this: the relay has noticed who has gone."""
    with trio.fail_after(PATIENCE):
        while await trio.to_thread.run_sync(metric, relay, name) > value:  # noqa: ASYNC110
            await trio.sleep(0.2)


async def connected(relay: Derper, clients: int) -> None:
    """Wait until the relay has so many clients."""
    with trio.fail_after(PATIENCE):
        while await trio.to_thread.run_sync(metric, relay, CONNECTIONS) != clients:  # noqa: ASYNC110
            await trio.sleep(0.2)


async def test_a_minute_of_churn_leaves_nothing_behind(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    chance = random.Random(3)
    with derper(tmp_path) as relay:
        rss = Path(f"/proc/{relay.process.pid}/status")

        def resident() -> int:
            match = re.search(r"VmRSS:\s+(\d+) kB", rss.read_text())
            assert match
            return int(match[1])

        server_key = await trio.to_thread.run_sync(public_key, relay)
        async with trio.open_nursery() as nursery:
            crowd = Crowd(relay, server_key, nursery)
            async with trio.open_nursery() as logins:
                for _ in range(CLIENTS):
                    logins.start_soon(crowd.add)
            await connected(relay, CLIENTS)
            tasks = await trio.to_thread.run_sync(metric, relay, "goroutines")
            fds = await trio.to_thread.run_sync(metric, relay, "derp_current_file_descriptors")

            # The first seconds fill caches and pools; after them memory must stay where it is.
            memory: list[int] = []
            start = trio.current_time()
            second = 0
            while trio.current_time() < start + SECONDS:
                second += 1
                async with trio.open_nursery() as busy:
                    for _ in range(KILLS_A_SECOND):
                        await crowd.kill(chance)
                        busy.start_soon(crowd.add)
                    chosen = chance.sample(crowd.clients, 400)
                    for one, other in zip(chosen[::2], chosen[1::2], strict=True):
                        busy.start_soon(one.send_packet, other.key, one.key * chance.randrange(40))
                    await trio.sleep_until(start + second)
                memory.append(resident())
                if second % 5 == 0:
                    assert await trio.to_thread.run_sync(consistent, relay)
            await connected(relay, CLIENTS)
            print(f"resident memory, kB, each tenth of the time: {memory[:: len(memory) // 10]}")
            await settled(relay, "goroutines", tasks)
            await settled(relay, "derp_current_file_descriptors", fds + 2)
            settled_from = len(memory) // 4
            assert max(memory[-3:]) < 1.05 * max(memory[settled_from : settled_from + 3])
            assert sum(client.received for client in crowd.clients) > 50 * SECONDS

            while crowd.clients:
                await crowd.kill(chance)
        await connected(relay, 0)
        await settled(relay, "goroutines", tasks - CLIENTS)
        assert consistent(relay)
        assert metric(relay, "derper_queue_bytes") == 0
        assert relay.stop() == 0
        assert not any("Traceback" in line or "bug" in line for line in relay.log)
