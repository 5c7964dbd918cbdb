"""The list of clients: what each line says, and that making it delays nobody."""

import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import attrs
import pytest
import trio
import trio.testing

from derp.accounts.counts import Counts, Period
from derp.files.ratelimit import RateConfig
from derp.net.address import Endpoint
from derp.policy.model import Entry, Policy, Quota
from derp.service import clients
from derp.service.clients import ClientStatus, client_statuses, page, with_duplicates
from derp.session import serverinfo
from tests.peers import PREFERRED, SEND, frame
from tests.relays import Relay, running, with_mesh_key
from tests.turns import counted_turns

Clock = trio.testing.MockClock


@pytest.fixture
async def relay(autojump_clock: Clock) -> AsyncIterator[Relay]:
    async with running(with_mesh_key) as relay:
        yield relay


async def test_what_is_told_of_a_client(autojump_clock: Clock, relay: Relay) -> None:
    one = await relay.login(client=Endpoint("2001:db8::7", 41641))
    two = await relay.login()
    await trio.sleep(10)
    quota = Quota(10**9, Period.MONTH, RateConfig(1000, 65568))
    entry = Entry(label="printer", limit=RateConfig(250_000, 65568), quota=quota)
    await serverinfo.apply_policy(relay.state, relay._nursery, Policy({one.key: entry}))
    await one.receive()
    await one.send(PREFERRED, b"\1")
    for _ in range(3):
        await one.send_packet(two.key, b"hello")
    for _ in range(3):
        await two.receive_packet()
    first, second = await client_statuses(relay.state)
    assert first.key == one.key
    assert first.label == "printer"
    assert first.remote == "[2001:db8::7]:41641"
    assert (first.home, first.mesh, first.duplicate, first.worker) == (True, False, False, 0)
    assert (first.packets_received, first.packets_sent) == (3, 0)
    assert (first.limit, first.quota, first.quota_period) == (250_000, 10**9, "month")
    assert (first.used_day, first.used_month) == (None, None)
    assert (second.packets_received, second.packets_sent) == (0, 3)
    assert (second.label, second.home, second.limit, second.quota) == ("", False, None, None)
    assert second.quota_period == ""


async def test_seconds_since_the_login_are_those_of_the_relays_clock(
    autojump_clock: Clock, relay: Relay
) -> None:
    await relay.login()
    await trio.sleep(500)
    (status,) = await client_statuses(relay.state)
    assert abs(time.time() - 500 - status.since) < 60


async def test_duplicates_and_mesh_peers(autojump_clock: Clock, relay: Relay) -> None:
    one = await relay.login()
    await relay.login(key=one.private)
    mesh = await relay.mesh_login()
    relay.state.policy = Policy(default=Entry(quota=Quota(1, Period.DAY, None)))
    found = await client_statuses(relay.state)
    assert [status.duplicate for status in found] == [True, True, False]
    assert [status.mesh for status in found] == [False, False, True]
    assert found[2].key == mesh.key
    # No quota binds it.
    assert [status.quota for status in found] == [1, 1, None]
    assert len({status.connection for status in found}) == 3


async def test_what_waits_and_what_was_dropped(autojump_clock: Clock, relay: Relay) -> None:
    slow, sender = await relay.login(capacity=100), await relay.login()
    for _ in range(3):
        await sender.end.send(frame(SEND, slow.key + bytes(60_000)) * 10)
        await sender.ping()
    status = (await client_statuses(relay.state))[0]
    assert status.packets_sent + status.queued_packets + status.packets_dropped == 30
    assert status.packets_dropped > 0
    # A frame that is half sent has left the queue.
    size = 5 + 32 + 60_000
    assert status.queued_bytes == status.queued_packets * size > 0


class Kept:
    """Accounts that know one key."""

    def used(self, key: bytes, period: Period) -> int:
        return {Period.DAY: 5, Period.MONTH: 70}[period]

    def add(self, key: bytes, counts: Counts) -> None:
        pass


async def test_what_the_accounts_say(autojump_clock: Clock, relay: Relay) -> None:
    relay.state.accounts = Kept()
    await relay.login()
    (status,) = await client_statuses(relay.state)
    assert (status.used_day, status.used_month) == (5, 70)


def ids(found: list[ClientStatus]) -> list[bytes]:
    return [status.key for status in found]


async def test_the_list_takes_turns_with_other_tasks(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLIENTS_PER_PAGE", 2)
    peers = []
    for _ in range(5):
        peers.append(await relay.login())
        await trio.sleep(1)
    order = [peer.key for peer in peers]
    assert ids(await client_statuses(relay.state)) == order
    pages: list[int] = []
    turns = 0

    def noted(*args: object) -> object:
        pages.append(turns)
        return page(*args)

    monkeypatch.setattr(clients, "page", noted)

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await client_statuses(relay.state)
        nursery.cancel_scope.cancel()
    assert pages[-1] > pages[0]
    assert len(pages) == 3
    # Who leaves or comes between two pages keeps no other from being listed.
    first, after = page(relay.state, None)
    assert ids(first) == order[:2]
    await peers[0].end.aclose()
    await relay.end_of(peers[0])
    late = await relay.login()
    second, after = page(relay.state, after)
    assert ids(second) == order[2:4]
    third, after = page(relay.state, after)
    assert (ids(third), after) == ([order[4], late.key], None)


async def test_many_queued_packets_make_a_page_shorter(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "QUEUED_PER_PAGE", 10)
    slow = await relay.login(capacity=100)
    await trio.sleep(1)
    sender = await relay.login()
    await sender.end.send(frame(SEND, slow.key + bytes(1000)) * 30)
    await sender.ping()
    # Only now the first client is busy.
    await sender.end.send(frame(SEND, slow.key + bytes(1000)) * 30)
    await sender.ping()
    found, after = page(relay.state, None)
    assert ids(found) == [slow.key]
    assert after is not None
    assert len(await client_statuses(relay.state)) == 2


async def test_clients_of_one_moment_stay_together(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLIENTS_PER_PAGE", 2)
    for _ in range(5):
        await relay.login()
    found, after = page(relay.state, None)
    assert (len(found), after) == (5, None)


async def test_a_status_goes_through_json(autojump_clock: Clock, relay: Relay) -> None:
    relay.state.policy = Policy(default=Entry(quota=Quota(7, Period.DAY, None)))
    await relay.login()
    (status,) = await client_statuses(relay.state)
    assert ClientStatus.from_json(json.loads(json.dumps(status.to_json()))) == status


async def test_many_connections_of_one_key_at_two_workers(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.login()
    (status,) = await client_statuses(relay.state)
    with counted_turns() as turns:

        def evolve(found: ClientStatus, **changes: object) -> ClientStatus:
            turns.note()
            return attrs.evolve(found, **changes)

        monkeypatch.setattr(clients, "attrs", SimpleNamespace(evolve=evolve))
        other = attrs.evolve(status, key=bytes(32))
        found = await with_duplicates([other, *[status] * 1000])
    assert [status.duplicate for status in found] == [False, *[True] * 1000]
    assert turns.events.total() == 1000
    assert turns.most <= clients.CLIENTS_PER_PAGE


async def test_duplicates_are_known_page_by_page(autojump_clock: Clock, relay: Relay) -> None:
    """So that nothing is done for all of them in one turn."""
    one = await relay.login()
    assert not page(relay.state, None)[0][0].duplicate
    await relay.login(key=one.private)
    assert [status.duplicate for status in page(relay.state, None)[0]] == [True, True]
