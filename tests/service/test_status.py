"""What /debug/ shows of a relay, in a mesh or alone; the pages' text is tested beside its code."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio
import trio.testing

from derp.admission.policykeeper import policy_of
from derp.net.listenaddress import Address
from derp.relay.hub import Hub
from derp.relay.queuememory import QueueMemory
from derp.service.keybook import KeyBook
from derp.service.status import Pages, standalone_pages
from derp.service.traffic import Traffic, traffic, traffic_lines
from derp.wire.trains import Train
from tests.peers import FORWARD, SEND, WATCH, disco, frame
from tests.relays import Relay, running, with_mesh_key
from tests.service.resources import running_relay
from tests.support.config import make_config

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))

CONFIG = make_config(dev=True, a=Address("127.0.0.1", 0))
Clock = trio.testing.MockClock


class Link:
    def forward(
        self, train: Train, packets: int, payload: int, destination: bytes, disco: bool
    ) -> None:
        pass


@pytest.fixture
async def relay(autojump_clock: Clock) -> AsyncIterator[Relay]:
    async with running(with_mesh_key) as relay:
        yield relay


def pages(relay: Relay) -> Pages:
    steer = cast("Any", None)
    return standalone_pages(running_relay(CONFIG, relay.state), steer, KeyBook(policy_of(None)))


async def varz(relay: Relay) -> dict[str, float]:
    text = await pages(relay).varz()
    found = re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def gauges(relay: Relay) -> tuple[float, ...]:
    values = await varz(relay)
    return tuple(values[f"derp_clients_{which}"] for which in ("local", "remote", "total"))


async def test_clients_here_and_elsewhere_are_counted(autojump_clock: Clock, relay: Relay) -> None:
    one, two = Link(), Link()
    assert await gauges(relay) == (0, 0, 0)
    client = await relay.login()
    await relay.login(key=client.private)
    await relay.mesh_login()
    assert await gauges(relay) == (2, 0, 2)
    relay.hub.add_forwarder(A, one)
    relay.hub.add_forwarder(A, two)
    relay.hub.add_forwarder(B, two)
    assert await gauges(relay) == (2, 2, 4)
    # A client that is here is not counted once more where another relay has it, too.
    relay.hub.add_forwarder(client.key, one)
    assert await gauges(relay) == (2, 2, 4)
    relay.hub.remove_forwarder(A, one)
    relay.hub.remove_forwarder(B, one)
    relay.hub.remove_forwarder(B, two)
    assert await gauges(relay) == (2, 1, 3)
    values = await varz(relay)
    assert values["derp_multiforwarder_created"] == 1
    assert values["derp_multiforwarder_deleted"] == 1
    assert values["derp_packet_forwarder_delete_other_value"] == 1


async def test_all_keys_are_gathered_once_for_a_page(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else runs meanwhile, and there may be many."""
    gathered = 0

    def key_count(hub: object) -> int:
        nonlocal gathered
        gathered += 1
        return 7

    monkeypatch.setattr(Hub, "key_count", property(key_count))
    assert await gauges(relay) == (0, 7, 7)
    assert gathered == 1


async def test_what_waits_for_slow_clients_is_shown(autojump_clock: Clock) -> None:
    async with running(memory=QueueMemory(8 << 20)) as relay:
        await shows_what_waits(relay)


async def shows_what_waits(relay: Relay) -> None:
    assert (await varz(relay))["derper_queue_limit_bytes"] == 8 << 20
    assert (await varz(relay))["derper_queue_bytes"] == 0
    slow, sender = await relay.login(capacity=100), await relay.login()
    for _ in range(3):
        await sender.end.send(frame(SEND, slow.key + bytes(60_000)) * 10)
        await sender.ping()
    held = relay.state.memory.held
    assert (await varz(relay))["derper_queue_bytes"] == held > 1 << 20
    rows = await pages(relay).rows()
    assert ("Queues", f"{held / (1 << 20):.1f} of 8.0 MiB", "Relay") in rows


async def test_watchers_and_what_they_are_told_are_counted(
    autojump_clock: Clock, relay: Relay
) -> None:
    watcher = await relay.mesh_login()
    assert (await varz(relay))["derp_watchers"] == 0
    await watcher.send(WATCH)
    await watcher.receive()
    await relay.login()
    values = await varz(relay)
    assert values["derp_watchers"] == 1
    assert values["derp_mesh_update_batch_size_count"] == 2
    assert values["derp_mesh_update_loop_count_sum"] == 2
    await watcher.end.aclose()
    await relay.end_of(watcher)
    assert (await varz(relay))["derp_watchers"] == 0


async def test_forwarded_packets_are_counted_in_and_out(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    relay.hub.add_forwarder(A, Link())
    for _ in range(2):
        await client.send_packet(A, b"out")
    await client.ping()
    await peer.end.send(frame(FORWARD, A + client.key + b"in") * 3)
    await peer.end.send(frame(FORWARD, A + B + b"lost"))
    await peer.end.send(frame(FORWARD, A + C + disco()))
    await peer.receive()
    values = await varz(relay)
    assert values["derp_packets_forwarded_out"] == 2
    assert values["derp_packets_forwarded_in"] == 5
    assert values["derp_packets_received"] == 2
    assert values["derp_packets_sent"] == 3
    for kind in ("disco", "other"):
        label = f'{{reason="unknown_dest_on_fwd",kind="{kind}"}}'
        assert values[f"derp_packets_dropped{label}"] == 1


async def test_tasks_are_counted_for_each_page(autojump_clock: Clock, relay: Relay) -> None:
    before = (await varz(relay))["goroutines"]
    await relay.login()
    assert (await varz(relay))["goroutines"] > before


class Samples:
    """Returns what it is set to, and waits for nobody."""

    def __init__(self) -> None:
        self.now: list[Traffic] = []

    async def __call__(self) -> list[Traffic]:
        return self.now


async def test_traffic_of_those_who_had_some(autojump_clock: Clock) -> None:
    samples = Samples()
    shown = []
    one, two = Traffic("1", A, 5, 6, 7), Traffic("2", B, 0, 0, 0)
    # The third has the first one's key, and its bytes at that.
    three = Traffic("3", A, 5, 6, 0)
    changed = two._replace(received=1)
    async with contextlib.aclosing(traffic_lines(samples)) as chunks:
        for samples.now in ([], [one, two], [one, two], [one, changed, three], [], [one]):
            shown.append(await anext(chunks))
    assert trio.current_time() == 10
    assert [chunk.count(b"\n") for chunk in shown] == [1, 2, 1, 3, 1, 2]
    [line, _] = shown[1].split(b"\n", 1)
    assert json.loads(line) == {
        "Sent": 5,
        "Recv": 6,
        "Key": f"nodekey:{A.hex()}",
        "UniqueSenders": 7,
    }


async def test_connections_of_a_key_are_told_apart(autojump_clock: Clock, relay: Relay) -> None:
    client = await relay.login()
    await relay.login(key=client.private)
    other = await relay.login()
    await client.send_packet(other.key, b"x")
    await other.receive_packet()
    found = traffic(relay.state)
    assert len({each.connection for each in found}) == 3
    assert [each.key for each in found] == [client.key, client.key, other.key]
    assert [each.unique_senders for each in found] == [0, 0, 1]
    assert found == traffic(relay.state)
    # A later connection may be found in the place of one that has ended.
    next(iter(relay.hub.members)).connected_at += 1
    assert {each.connection for each in traffic(relay.state)} > {
        each.connection for each in found[1:]
    }
    assert traffic(relay.state)[0].connection != found[0].connection
