"""Who belongs, seen by clients: at login, when the list changes, and when they are asked about."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import nacl.public
import pytest
import trio
import trio.testing

from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.filewatch import CHECK_EVERY
from derp.admission.listkeeper import ListRequest, keep_list
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.sources import Sources
from derp.errors import NotAdmitted, PeerVanished
from derp.session import recheck
from derp.session.state import RelayState
from derp.wire.keys import node_public_text
from tests.peers import SEND, Peer, frame
from tests.relays import Relay, running, with_mesh_key
from tests.support.threads import run_at_once

Clock = trio.testing.MockClock


class Source:
    """Admits whom it knows, after a while."""

    name = "tailscaled"

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.away = False
        self.takes = 0.0
        self.asked: list[Question] = []

    async def ask(self, question: Question) -> Verdict:
        self.asked.append(question)
        await trio.sleep(self.takes)
        if self.away:
            return Verdict(Outcome.UNREACHABLE, self.name, "away; start it")
        if question.key in self.known:
            return Verdict(Outcome.ALLOWED, self.name)
        return Verdict(Outcome.REFUSED, self.name, "not known")


class Guarded:
    """A relay with a gate, and keys for its clients."""

    def __init__(self, relay: Relay, source: Source, admission: Checker) -> None:
        self.relay = relay
        self.source = source
        self.admission = admission

    def key(self, *, known: bool = False) -> nacl.public.PrivateKey:
        key = nacl.public.PrivateKey.generate()
        if known:
            self.source.known.add(bytes(key.public_key))
        return key

    async def member(self) -> Peer:
        return await self.relay.login(key=self.key(known=True))

    async def refusal(self, peer: Peer) -> str:
        end = await self.relay.end_of(peer)
        assert isinstance(end, NotAdmitted)
        return str(end)


@pytest.fixture
async def guarded(autojump_clock: Clock) -> AsyncIterator[Guarded]:
    source = Source()
    admissions: list[Checker] = []

    def guard(state: RelayState) -> None:
        state.admission = Checker(state.metrics, Sources(tailscaleds=[source]))
        state.admission.ask_in(state.nursery)
        admissions.append(state.admission)

    async with running(guard) as relay:
        yield Guarded(relay, source, admissions[0])


async def knock(relay: Relay, key: nacl.public.PrivateKey, behind: bytes = b"") -> Peer:
    """Say all that a login takes, and `behind`, and wait for nothing."""
    peer = relay.connect(key=key)
    await peer.receive()
    await peer.end.send(peer.client_info(relay.state.public_key) + behind)
    return peer


async def test_an_admitted_client_gets_in(autojump_clock: Clock, guarded: Guarded) -> None:
    guarded.source.takes = 3.0
    member = await guarded.member()
    assert member.server_info == {"version": 2}
    assert [question.key for question in guarded.source.asked] == [member.key]


async def test_a_refused_client_is_ended_before_the_server_says_more(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    key = guarded.key()
    peer = await knock(guarded.relay, key)
    refusal = await guarded.refusal(peer)
    text = node_public_text(bytes(key.public_key))
    assert refusal == f"{text} is refused by tailscaled: not known"
    assert not guarded.relay.hub.members
    with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever a closed stream raises
        await peer.receive()


async def test_no_packet_of_a_refused_client_is_relayed(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    guarded.source.takes = 3.0
    member = await guarded.member()
    packet = frame(SEND, member.key + b"from a stranger")
    peer = await knock(guarded.relay, guarded.key(), packet * 3)
    await peer.end.send(packet)
    await guarded.refusal(peer)
    assert guarded.relay.metrics.packets_received == 0
    await member.send_packet(member.key, b"own")
    assert await member.receive_packet() == (member.key, b"own")


async def test_packets_sent_with_the_login_wait_for_the_verdict(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    member = await guarded.member()
    guarded.source.takes = 3.0
    key = guarded.key(known=True)
    await knock(guarded.relay, key, frame(SEND, member.key + b"early"))
    assert await member.receive_packet() == (bytes(key.public_key), b"early")
    assert trio.current_time() == 3.0


async def test_without_admission_everybody_gets_in(autojump_clock: Clock) -> None:
    async with running() as relay:
        await relay.login()
        assert relay.metrics.admission_verdicts == {}


async def test_a_source_that_cannot_be_asked_is_a_refusal(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    guarded.source.away = True
    peer = await knock(guarded.relay, guarded.key(known=True))
    assert "away; start it" in await guarded.refusal(peer)


async def test_a_client_that_leaves_while_it_waits_leaves_nothing(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    guarded.source.takes = 3.0
    peer = await knock(guarded.relay, guarded.key(known=True))
    await trio.testing.wait_all_tasks_blocked()
    await peer.end.aclose()
    assert isinstance(await guarded.relay.end_of(peer), PeerVanished | None)
    assert not guarded.relay.hub.members


async def test_a_client_no_longer_admitted_is_ended_at_the_recheck(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    stays, goes = await guarded.member(), await guarded.member()
    twin = await guarded.relay.login(key=goes.private)
    guarded.source.known.discard(goes.key)
    async with trio.open_nursery() as nursery:
        state = guarded.relay.state
        nursery.start_soon(recheck.recheck_forever, state, guarded.admission, 300.0)
        await trio.sleep(299.0)
        assert len(guarded.relay.hub.members) == 3
        for peer in (goes, twin):
            assert "no longer admitted by tailscaled" in await guarded.refusal(peer)
        assert trio.current_time() == 300.0
        assert [member.key for member in guarded.relay.hub.members] == [stays.key]
        nursery.cancel_scope.cancel()


async def test_a_passive_client_is_rechecked_too(autojump_clock: Clock, guarded: Guarded) -> None:
    state, link = guarded.relay.state, cast("Any", object())
    peer = await guarded.member()
    state.hub.add_claim(peer.key, link, claim=1)
    assert not state.hub.active
    guarded.source.known.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recheck.recheck_forever, state, guarded.admission, 300.0)
        assert "no longer admitted" in await guarded.refusal(peer)
        nursery.cancel_scope.cancel()
    state.hub.remove_claim(peer.key, link)


async def test_connected_clients_stay_while_the_source_cannot_be_asked(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    await guarded.member()
    guarded.source.away = True
    state = guarded.relay.state
    await recheck.recheck(state, guarded.admission, state.hub.active)
    await trio.sleep(1.0)
    assert len(guarded.relay.hub.members) == 1
    await recheck.recheck(state, guarded.admission, state.hub.active, strict=True)
    await trio.sleep(1.0)
    assert not guarded.relay.hub.members


async def test_clients_are_rechecked_concurrently(autojump_clock: Clock, guarded: Guarded) -> None:
    members = [await guarded.member() for _ in range(2 * recheck.CONCURRENCY)]
    guarded.source.takes = 1.0
    guarded.source.known.clear()
    start = trio.current_time()
    state = guarded.relay.state
    await recheck.recheck(state, guarded.admission, state.hub.active)
    assert trio.current_time() - start <= len(members) / 4
    for member in members:
        assert "no longer admitted" in await guarded.refusal(member)


async def test_a_client_that_logs_in_while_its_key_is_rechecked_is_ended_with_it(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    first = await guarded.member()
    guarded.source.takes = 2.0
    guarded.source.known.clear()
    state = guarded.relay.state
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recheck.recheck, state, guarded.admission, [first.key])
        await trio.sleep(1.0)
        # What is remembered lets it in.
        twin = await guarded.relay.login(key=first.private)
    for peer in (first, twin):
        assert "no longer admitted" in await guarded.refusal(peer)


@pytest.fixture
async def open_(autojump_clock: Clock) -> AsyncIterator[Guarded]:
    """A relay with a URL that fails open, and the task that asks about those who come in so."""
    source = Source()
    admissions: list[Checker] = []

    def guard(state: RelayState) -> None:
        state.admission = Checker(state.metrics, Sources(urls=[source]), remember=0.0)
        state.admission.ask_in(state.nursery)
        admissions.append(state.admission)

    async with running(guard) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(recheck.recheck_unverified, relay.state, admissions[0])
        yield Guarded(relay, source, admissions[0])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("takes", [0.0, 5.0])
async def test_an_unverified_client_is_rechecked_soon(
    autojump_clock: Clock, open_: Guarded, takes: float
) -> None:
    open_.source.away, open_.source.takes = True, takes
    strangers = [await open_.relay.login() for _ in range(50)]
    members = [await open_.member() for _ in range(5)]
    await trio.sleep(100.0)
    assert len(open_.relay.hub.members) == 55
    open_.source.away, open_.source.takes = False, 0.06
    begin = trio.current_time()
    for stranger in strangers:
        assert "no longer admitted by tailscaled: not known" in await open_.refusal(stranger)
    assert trio.current_time() - begin <= recheck.UNVERIFIED_EVERY + takes + 5.0
    await trio.sleep(1.0)
    assert {one.key for one in open_.relay.hub.members} == {one.key for one in members}
    # Asked once, and that was it.
    open_.source.asked.clear()
    await trio.sleep(100.0)
    assert open_.source.asked == []
    assert not open_.relay.state.unverified


async def test_while_it_lasts_an_outage_costs_few_questions(
    autojump_clock: Clock, open_: Guarded
) -> None:
    open_.source.away = True
    for _ in range(50):
        await open_.relay.login()
    open_.source.asked.clear()
    await trio.sleep(100.0)
    assert len(open_.source.asked) <= 100.0 / recheck.UNVERIFIED_EVERY


async def test_a_client_that_can_never_be_rechecked_does_not_shield_the_others(
    autojump_clock: Clock, open_: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_.source.away = True
    one, *others = [await open_.relay.login() for _ in range(10)]
    ask = open_.source.ask

    async def hang_up(question: Question) -> Verdict:
        if question.key == one.key:
            return Verdict(Outcome.UNKNOWN, "tailscaled", "hung up")
        return await ask(question)

    monkeypatch.setattr(open_.source, "ask", hang_up)
    open_.source.away = False
    for other in others:
        await open_.refusal(other)
    await one.ping()


async def test_an_unverified_client_that_has_left_is_forgotten(
    autojump_clock: Clock, open_: Guarded
) -> None:
    open_.source.away = True
    peers = [await open_.relay.login() for _ in range(10)]
    assert len(open_.relay.state.unverified) == 10
    for peer in peers:
        await peer.end.aclose()
    await trio.sleep(2 * recheck.UNVERIFIED_EVERY)
    assert not open_.relay.state.unverified


class Listed:
    """A relay with a list and a tailscaled, and the task that looks at the list."""

    def __init__(
        self, relay: Relay, file: Path, source: Source, wake: trio.MemorySendChannel[ListRequest]
    ) -> None:
        self.relay = relay
        self.file = file
        self.source = source
        self.wake = wake

    def write(self, *keys: nacl.public.PrivateKey) -> None:
        lines = [node_public_text(bytes(key.public_key)) for key in keys]
        self.file.write_text("\n".join(lines))


@pytest.fixture
async def listed(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Listed]:
    run_at_once(monkeypatch)
    listing, source = AllowList(tmp_path / "nodes", {}), Source()

    def guard(state: RelayState) -> None:
        state.admission = Checker(state.metrics, Sources(allowlist=listing, tailscaleds=[source]))
        state.admission.ask_in(state.nursery)

    wake, woken = trio.open_memory_channel[ListRequest](1)
    async with running(guard) as relay, trio.open_nursery() as nursery:
        admission = relay.state.admission
        listing.path.write_text(node_public_text(bytes(range(32))))
        assert isinstance(admission, Checker)
        removed = partial(recheck.recheck, relay.state, admission, strict=True)
        nursery.start_soon(keep_list, admission, listing, woken, removed)
        yield Listed(relay, listing.path, source, wake)
        nursery.cancel_scope.cancel()


async def test_a_changed_list_admits_and_ends(autojump_clock: Clock, listed: Listed) -> None:
    one, two = nacl.public.PrivateKey.generate(), nacl.public.PrivateKey.generate()
    listed.write(one)
    await trio.sleep(3 * CHECK_EVERY)
    first = await listed.relay.login(key=one)
    listed.write(two)
    end = await listed.relay.end_of(first)
    assert isinstance(end, NotAdmitted)
    assert str(end) == "no longer admitted by tailscaled: not known"
    await listed.relay.login(key=two)


async def test_a_client_no_longer_listed_is_ended_though_the_other_sources_are_away(
    autojump_clock: Clock, listed: Listed
) -> None:
    listed.source.away, listed.source.takes = True, 5.0
    keys = [nacl.public.PrivateKey.generate() for _ in range(40)]
    listed.write(*keys)
    listed.wake.send_nowait(None)
    await trio.sleep(0.1)
    peers = [await listed.relay.login(key=key) for key in keys]
    listed.write(nacl.public.PrivateKey.generate())
    listed.wake.send_nowait(None)
    for peer in peers:
        await listed.relay.end_of(peer)
    assert not listed.relay.hub.members


async def test_the_list_is_read_at_once_when_asked(autojump_clock: Clock, listed: Listed) -> None:
    key = nacl.public.PrivateKey.generate()
    listed.write(key)
    listed.wake.send_nowait(None)
    await trio.sleep(0.1)
    await listed.relay.login(key=key)


async def test_a_broken_list_ends_nobody(
    autojump_clock: Clock, listed: Listed, caplog: pytest.LogCaptureFixture
) -> None:
    key = nacl.public.PrivateKey.generate()
    listed.write(key)
    await trio.sleep(3 * CHECK_EVERY)
    await listed.relay.login(key=key)
    listed.file.write_text("nodekey:12")
    await trio.sleep(10 * CHECK_EVERY)
    assert len(listed.relay.hub.members) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("the old list stays in force") == 1
    listed.file.unlink()
    await trio.sleep(10 * CHECK_EVERY)
    assert len(listed.relay.hub.members) == 1
    listed.file.write_text("")
    await trio.sleep(10 * CHECK_EVERY)
    assert len(listed.relay.hub.members) == 1
    listed.write(nacl.public.PrivateKey.generate())
    await trio.sleep(3 * CHECK_EVERY)
    assert not listed.relay.hub.members


async def test_mesh_peers_are_not_asked_about(autojump_clock: Clock, guarded: Guarded) -> None:
    """Another relay is often no node of the tailnet; it has shown that it may."""
    with_mesh_key(guarded.relay.state)
    guarded.source.away = True
    peer = await guarded.relay.mesh_login()
    await peer.ping()
    assert guarded.source.asked == []
    assert not any(guarded.relay.metrics.admission_verdicts.values())


async def test_a_wrong_mesh_key_lets_nobody_in(autojump_clock: Clock, guarded: Guarded) -> None:
    with_mesh_key(guarded.relay.state)
    peer = guarded.relay.connect()
    await peer.receive()
    info = peer.client_info(guarded.relay.state.public_key, meshKey="0f" * 32)
    await peer.end.send(info)
    assert "is refused by tailscaled" in await guarded.refusal(peer)


async def test_a_mesh_peer_stays_whatever_is_said_of_its_key(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    state = guarded.relay.state
    with_mesh_key(state)
    client = await guarded.member()
    peer = await guarded.relay.mesh_login(key=client.private)
    other = await guarded.relay.mesh_login()
    guarded.source.known.clear()
    guarded.source.asked.clear()
    await recheck.recheck(state, guarded.admission, state.hub.active, strict=True)
    assert "no longer admitted" in await guarded.refusal(client)
    assert [question.key for question in guarded.source.asked] == [client.key]
    await peer.ping()
    await other.ping()


async def test_a_recheck_with_only_mesh_peers_connected(
    autojump_clock: Clock, guarded: Guarded
) -> None:
    state = guarded.relay.state
    with_mesh_key(state)
    peer = await guarded.relay.mesh_login()
    for strict in (False, True):
        await recheck.recheck(state, guarded.admission, [peer.key], strict=strict)
    assert guarded.source.asked == []
    await peer.ping()
