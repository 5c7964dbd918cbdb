"""Clients are told of a rate limit that changes while they are connected."""

import json
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing

from derp.files.ratelimit import MIN_BURST, NO_LIMIT, RateConfig
from derp.session import serverinfo
from tests.peers import Peer
from tests.relays import Relay, running, with_mesh_key

Clock = trio.testing.MockClock

SERVER_INFO = 0x03
SLOW = RateConfig(100_000, 100_000)
FAST = RateConfig(10_000_000, MIN_BURST)


async def told(peer: Peer) -> dict[str, Any]:
    kind, payload = await peer.receive()
    assert kind == SERVER_INFO
    box = nacl.public.Box(peer.private, nacl.public.PublicKey(peer.server_key))
    info: dict[str, Any] = json.loads(box.decrypt(payload))
    return info


async def change(relay: Relay, limit: RateConfig) -> None:
    async with trio.open_nursery() as nursery:
        serverinfo.apply(relay.state, nursery, limit)


async def test_clients_are_told_a_lowered_raised_and_lifted_limit(autojump_clock: Clock) -> None:
    async with running() as relay:
        peer = await relay.login()
        assert peer.server_info == {"version": 2}
        await change(relay, SLOW)
        assert await told(peer) == {
            "version": 2,
            "TokenBucketBytesPerSecond": 100_000,
            "TokenBucketBytesBurst": 100_000,
        }
        await change(relay, FAST)
        # At least what flows in during a long round trip.
        assert (await told(peer))["TokenBucketBytesBurst"] == 2_500_000
        await change(relay, NO_LIMIT)
        assert await told(peer) == {"version": 2}


async def test_a_client_that_logs_in_is_told_the_same(autojump_clock: Clock) -> None:
    async with running() as relay:
        await change(relay, FAST)
        assert (await relay.login()).server_info["TokenBucketBytesBurst"] == 2_500_000


async def test_the_same_limit_is_not_told_again(autojump_clock: Clock) -> None:
    async with running() as relay:
        peer = await relay.login()
        await change(relay, SLOW)
        await told(peer)
        await change(relay, RateConfig(100_000, 100_000))
        await change(relay, NO_LIMIT)
        assert await told(peer) == {"version": 2}


async def test_mesh_peers_have_no_limit(autojump_clock: Clock) -> None:
    async with running(with_mesh_key) as relay:
        peer = await relay.mesh_login()
        await change(relay, SLOW)
        await peer.ping()
        assert (await peer.receive())[0] != SERVER_INFO


async def test_a_later_limit_ends_the_telling(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverinfo, "CLIENTS_PER_TURN", 1)
    async with running() as relay:
        peers = [await relay.login() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            serverinfo.apply(relay.state, nursery, SLOW)
            serverinfo.apply(relay.state, nursery, NO_LIMIT)
        for peer in peers:
            assert await told(peer) == {"version": 2}


async def test_others_have_their_turn_meanwhile(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverinfo, "CLIENTS_PER_TURN", 2)
    turns = 0
    async with running() as relay:
        for _ in range(10):
            await relay.login()

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as others:
            others.start_soon(count)
            await change(relay, SLOW)
            others.cancel_scope.cancel()
    assert turns >= 4
