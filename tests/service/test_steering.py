"""Clients disconnected, denied, allowed and limited by an operator of a relay that runs."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import nacl.public
import pytest
import trio
import trio.testing

from derp.admission import allowlist, listkeeper, policykeeper
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.filewatch import CHECK_EVERY
from derp.admission.keep import keep_checker
from derp.admission.listkeeper import LIST_TIMEOUT, ListRequest
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.policykeeper import CHANGE_TIMEOUT, PolicyRequest, keep_policy, policy_of
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.errors import ClosedByOperator, ConnectionEnd, NotAdmitted, SteeringFailed
from derp.files import rewrite
from derp.metrics import Metrics
from derp.policy.change import Change
from derp.policy.file import load
from derp.policy.model import Entry, Policy
from derp.service.keylist import list_to_steer
from derp.service.steering import RelaySteering, Steered, end_clients, is_mesh
from derp.session import recheck, serverinfo
from derp.session.state import RelayState
from derp.wire.control import Command
from derp.wire.keys import node_public_text
from tests.memory_transport import CLIENT
from tests.peers import SERVER_INFO, Peer
from tests.relays import Relay, running, with_mesh_key
from tests.support.threads import run_at_once

Clock = trio.testing.MockClock
BY = "uid 0, pid 7"


@attrs.define
class SteeredRelay:
    """A relay with its steering."""

    relay: Relay
    steering: RelaySteering
    source: PolicySource
    to_keeper: trio.MemorySendChannel[PolicyRequest]

    async def is_admitted(self, peer: Peer) -> bool:
        """Log in again with the key of `peer`."""
        back = self.relay.connect(key=peer.private)
        await back.receive()
        await back.end.send(back.client_info(self.relay.state.public_key))
        try:
            kind, _ = await back.receive()
        except EOFError:
            assert isinstance(await self.relay.end_of(back), NotAdmitted)
            return False
        assert kind == SERVER_INFO
        await back.end.aclose()
        await self.relay.end_of(back)
        return True


@asynccontextmanager
async def steered(
    checker: Checker | None, also: Callable[[RelayState], None] = lambda _: None
) -> AsyncIterator[SteeredRelay]:
    """Run a relay as derp.service.standalone does."""
    source = policy_of(checker)

    def prepare(state: RelayState) -> None:
        state.admission = checker
        state.policy = source.policy
        also(state)

    to_keeper, requests = trio.open_memory_channel[PolicyRequest](1)
    async with running(prepare) as relay, trio.open_nursery() as nursery:

        async def apply(policy: Policy) -> int:
            return await serverinfo.apply_policy(relay.state, nursery, policy)

        async def removed(keys: set[bytes]) -> None:
            if checker is not None:
                await recheck.recheck(relay.state, checker, keys, strict=True)

        nursery.start_soon(keep_policy, source, checker, requests, apply, removed)
        to_list, list_requests = trio.open_memory_channel[ListRequest](1)
        if checker is not None:
            nursery.start_soon(keep_checker, checker, list_requests, removed)
        steering = RelaySteering(
            partial(end_clients, relay.state),
            partial(is_mesh, relay.state),
            to_keeper,
            list_to_steer(checker, to_list),
        )
        yield SteeredRelay(relay, steering, source, to_keeper)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def plain(autojump_clock: Clock) -> AsyncIterator[SteeredRelay]:
    """A relay that checks nobody."""
    async with steered(None) as relay:
        yield relay


@pytest.fixture
async def filed(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SteeredRelay]:
    """A relay with a policy file."""
    run_at_once(monkeypatch)
    monkeypatch.setattr(rewrite, "SETTLED_AFTER", 0.0)
    path = tmp_path / "policy.toml"
    path.write_text("[defaults]\n")
    async with steered(Checker(Metrics(), Sources(policy=PolicySource(path, load(path))))) as relay:
        yield relay


async def told(peer: Peer) -> int:
    kind, payload = await peer.receive()
    assert kind == SERVER_INFO
    box = nacl.public.Box(peer.private, nacl.public.PublicKey(peer.server_key))
    return json.loads(box.decrypt(payload)).get("TokenBucketBytesPerSecond", 0)


async def end_of(relay: SteeredRelay, peer: Peer) -> ConnectionEnd | None:
    return await relay.relay.end_of(peer)


def logged(caplog: pytest.LogCaptureFixture) -> tuple[str, dict[str, Any]]:
    (record,) = [each for each in caplog.records if each.name == "derper.steer"]
    fields = {name: value for name, value in record.__dict__["fields"].items() if value is not None}
    return record.getMessage(), fields


class TestWithoutAnything:
    async def test_a_kicked_client_may_come_back(
        self, autojump_clock: Clock, plain: SteeredRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "derper.steer")
        peer, other = await plain.relay.login(), await plain.relay.login()
        twin = await plain.relay.login(key=peer.private)
        found = await plain.steering.steer(Command("kick", peer.key), BY)
        key = node_public_text(peer.key)
        assert found == Steered(
            f"{key} is disconnected (2 connections), and may connect again; "
            "derper deny keeps it out",
            2,
        )
        for each in (peer, twin):
            assert isinstance(await end_of(plain, each), ClosedByOperator)
        await other.ping()
        assert await plain.is_admitted(peer)
        event, fields = logged(caplog)
        assert event == "disconnected by an operator"
        assert fields["by"] == BY
        assert fields["key"] == key
        assert fields["connections"] == 2

    async def test_nobody_to_kick(self, autojump_clock: Clock, plain: SteeredRelay) -> None:
        with pytest.raises(SteeringFailed, match=r"nodekey:00.* is not connected; derper clients"):
            await plain.steering.steer(Command("kick", bytes(32)), BY)

    async def test_a_denied_key_is_kept_out_until_it_is_allowed(
        self, autojump_clock: Clock, plain: SteeredRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "derper.steer")
        peer, other = await plain.relay.login(), await plain.relay.login()
        found = await plain.steering.steer(Command("deny", peer.key), BY)
        key = node_public_text(peer.key)
        assert found == Steered(
            f"{key} is denied (1 connection ended) until the relay stops: there is no -policy; "
            f'to keep it, put deny = true under [clients."{key}"] into a file, '
            "and start the relay with -policy and its path",
            1,
        )
        assert isinstance(await end_of(plain, peer), NotAdmitted)
        assert not await plain.is_admitted(peer)
        # The operator is told, though nobody else is asked who may come.
        (refused,) = plain.relay.state.refusals.latest()
        assert (refused.key, refused.address) == (peer.key, CLIENT.host)
        assert (refused.source, refused.reason) == ("policy", "the key is denied")
        await other.ping()
        event, fields = logged(caplog)
        assert event == "denied by an operator"
        assert fields["connections"] == 1
        assert fields["only_until_stop"] == "there is no -policy"
        assert (
            "is allowed until"
            in (await plain.steering.steer(Command("allow", peer.key), BY)).sentence
        )
        assert await plain.is_admitted(peer)

    async def test_a_limit_counts_at_once_and_is_taken_back(
        self, autojump_clock: Clock, plain: SteeredRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer, other = await plain.relay.login(), await plain.relay.login()
        found = await plain.steering.steer(Command("limit", peer.key, "2 Mbit/s"), BY)
        assert await told(peer) == 250_000
        assert " may send 2 Mbit/s until the relay stops" in found.sentence
        assert 'rate = "2 Mbit/s" under [clients."nodekey:' in found.sentence
        caplog.set_level(logging.INFO, "derper.steer")
        found = await plain.steering.steer(Command("limit", peer.key, None), BY)
        assert await told(peer) == 0
        assert found.sentence.endswith(" has no limit of its own")
        assert logged(caplog)[1]["rate"] == "none"
        assert plain.source.policy == Policy()
        found = await plain.steering.steer(Command("limit", peer.key, "unlimited"), BY)
        assert " has no limit until" in found.sentence
        await other.ping()

    async def test_what_is_no_rate(self, autojump_clock: Clock, plain: SteeredRelay) -> None:
        with pytest.raises(SteeringFailed, match="rate '10': want a rate such as \"10 Mbit/s\""):
            await plain.steering.steer(Command("limit", bytes(32), "10"), BY)
        with pytest.raises(SteeringFailed) as caught:
            await plain.steering.steer(Command("limit", bytes(32), "x" * 10_000), BY)
        assert len(str(caught.value)) < 300


async def test_no_policy_binds_a_relay_of_the_mesh(autojump_clock: Clock) -> None:
    async with steered(None, with_mesh_key) as relay:
        peer = await relay.relay.mesh_login()
        for change in (
            relay.steering.steer(Command("deny", peer.key), BY),
            relay.steering.steer(Command("allow", peer.key), BY),
            relay.steering.steer(Command("limit", peer.key, "1 MB/s"), BY),
        ):
            with pytest.raises(SteeringFailed, match="is a relay of the mesh, which no policy"):
                await change
        assert relay.source.policy == Policy()
        assert (await relay.steering.steer(Command("kick", peer.key), BY)).ended == 1


class Knows:
    """A source that knows one key."""

    name = "url"

    def __init__(self, key: bytes) -> None:
        self.key = key

    async def ask(self, question: Question) -> Verdict:
        await trio.lowlevel.checkpoint()
        outcome = Outcome.ALLOWED if question.key == self.key else Outcome.REFUSED
        return Verdict(outcome, self.name, "not known")


async def test_a_checker_without_a_policy_gets_one(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    listed, other = (nacl.public.PrivateKey.generate() for _ in range(2))
    checker = Checker(Metrics(), Sources(urls=[Knows(bytes(listed.public_key))]))
    checker.ask_in(nursery)
    async with steered(checker) as relay:
        peer = await relay.relay.login(key=listed)
        assert not await relay.is_admitted(Peer(None, other))
        assert checker.sources.policy is None
        await relay.steering.steer(Command("deny", peer.key), BY)
        assert isinstance(await end_of(relay, peer), NotAdmitted)
        assert not await relay.is_admitted(peer)
        await relay.steering.steer(Command("allow", bytes(other.public_key)), BY)
        assert await relay.is_admitted(Peer(None, other))


class TestWithAList:
    """Without a policy file: who is allowed stands in the list."""

    @pytest.fixture
    async def listed(
        self, autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[tuple[SteeredRelay, Path]]:
        run_at_once(monkeypatch)
        monkeypatch.setattr(rewrite, "SETTLED_AFTER", 0.0)
        path = tmp_path / "nodekeys"
        path.write_text(f"{node_public_text(bytes(32))} nobody # yet\n")
        checker = Checker(Metrics(), Sources(allowlist=AllowList(path, allowlist.load(path))))
        async with steered(checker) as relay:
            yield relay, path

    async def test_a_key_is_allowed_and_denied(
        self, autojump_clock: Clock, listed: tuple[SteeredRelay, Path]
    ) -> None:
        relay, path = listed
        one = nacl.public.PrivateKey.generate()
        key = node_public_text(bytes(one.public_key))
        found = await relay.steering.steer(
            Command("allow", bytes(one.public_key), label="laptop"), BY
        )
        assert found.sentence == f"{key} is allowed, which stands in {path} now"
        assert path.read_text().endswith(f" nobody # yet\n{key}  laptop\n")
        # Again, and with another label.
        await relay.steering.steer(Command("allow", bytes(one.public_key)), BY)
        await relay.steering.steer(Command("allow", bytes(one.public_key), label="old laptop"), BY)
        assert path.read_text().endswith(f"{key}  old laptop\n")

        peer = await relay.relay.login(key=one)
        found = await relay.steering.steer(Command("deny", peer.key), BY)
        assert found.ended == 1
        assert found.sentence.endswith(f"; it is no longer in {path}")
        assert isinstance(await end_of(relay, peer), NotAdmitted)
        assert not await relay.is_admitted(peer)
        # It is known by the name that it had.
        assert relay.source.policy.of(peer.key) == Entry(label="old laptop", allowed=False)
        assert path.read_text().endswith(" nobody # yet\n")
        (refused,) = relay.relay.state.refusals.latest()
        assert (refused.key, refused.source) == (peer.key, "policy")

        await relay.steering.steer(Command("allow", peer.key), BY)
        assert relay.source.policy == Policy()
        assert await relay.is_admitted(peer)

    async def test_the_list_alone_says_who_is_allowed(
        self, autojump_clock: Clock, listed: tuple[SteeredRelay, Path]
    ) -> None:
        relay, path = listed
        key = nacl.public.PrivateKey.generate()
        before = path.read_text()
        await relay.steering.steer(Command("allow", bytes(key.public_key)), BY)
        peer = await relay.relay.login(key=key)
        path.write_text(before)
        assert isinstance(await end_of(relay, peer), NotAdmitted)

    async def test_a_list_that_can_not_be_written(
        self, autojump_clock: Clock, listed: tuple[SteeredRelay, Path]
    ) -> None:
        relay, path = listed
        key = nacl.public.PrivateKey.generate()
        path.write_text("no key\n")
        found = await relay.steering.steer(Command("allow", bytes(key.public_key)), BY)
        assert " is allowed until the relay stops: -verify-client-file" in found.sentence
        assert found.sentence.endswith(
            f"to keep it, run this as a user who may write there, with -verify-client-file {path}"
        )
        peer = await relay.relay.login(key=key)
        found = await relay.steering.steer(Command("deny", peer.key), BY)
        assert f"; it may still be in {path}: -verify-client-file" in found.sentence
        assert not await relay.is_admitted(peer)

    async def test_the_last_key_is_denied_but_stays_in_the_list(
        self, autojump_clock: Clock, listed: tuple[SteeredRelay, Path]
    ) -> None:
        relay, path = listed
        found = await relay.steering.steer(Command("deny", bytes(32)), BY)
        assert f"; it may still be in {path}: no other key is in {path}" in found.sentence

    @pytest.mark.parametrize("label", ["a # b", "x" * 65])
    async def test_what_is_no_label(
        self, autojump_clock: Clock, listed: tuple[SteeredRelay, Path], label: str
    ) -> None:
        with pytest.raises(SteeringFailed, match="want a label"):
            await listed[0].steering.steer(Command("allow", bytes(32), label=label), BY)

    async def test_a_disk_that_does_not_answer(
        self,
        autojump_clock: Clock,
        listed: tuple[SteeredRelay, Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def never(*_: object) -> None:
            await trio.sleep(2 * LIST_TIMEOUT)

        monkeypatch.setattr(listkeeper, "_write", never)
        found = await listed[0].steering.steer(Command("allow", bytes([7]) * 32), BY)
        assert "until the relay stops: not within 6 s; see to the disk" in found.sentence


class TestWithAFile:
    async def test_a_change_stands_in_the_file(
        self, autojump_clock: Clock, filed: SteeredRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        peer, path = await filed.relay.login(), filed.source.path
        assert path is not None
        key = node_public_text(peer.key)
        found = await filed.steering.steer(Command("deny", peer.key), BY)
        assert found.sentence == f"{key} is denied (1 connection ended), which stands in {path} now"
        assert path.read_text() == f'[defaults]\n\n[clients."{key}"]\ndeny = true\n'
        assert not await filed.is_admitted(peer)
        event, fields = logged(caplog)
        assert (event, fields["file"]) == ("denied by an operator", str(path))
        await filed.steering.steer(Command("limit", peer.key, "1 MB/s"), BY)
        await filed.steering.steer(Command("allow", peer.key, label="phone"), BY)
        assert path.read_text() == (
            f'[defaults]\n\n[clients."{key}"]\nallow = true\nrate = "1 MB/s"\nlabel = "phone"\n'
        )
        caplog.clear()
        await trio.sleep(3 * CHECK_EVERY)
        # The file is not new to the relay.
        assert "new policy" not in caplog.text
        assert await filed.is_admitted(peer)

    async def test_what_was_changed_there_meanwhile_counts_too(
        self, autojump_clock: Clock, filed: SteeredRelay
    ) -> None:
        peer, other = await filed.relay.login(), await filed.relay.login()
        path = filed.source.path
        assert path is not None
        path.write_text(f'[clients."{node_public_text(other.key)}"]\ndeny = true # by hand')
        found = await filed.steering.steer(Command("deny", peer.key), BY)
        assert found.ended == 2
        assert isinstance(await end_of(filed, other), NotAdmitted)
        assert " # by hand\n" in path.read_text()

    async def test_what_can_not_be_written_holds_until_the_stop(
        self, autojump_clock: Clock, filed: SteeredRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer, other = await filed.relay.login(), await filed.relay.login()
        path = filed.source.path
        assert path is not None
        path.write_text("[defaults]\nrat = 1\n")
        found = await filed.steering.steer(Command("deny", peer.key), BY)
        assert found.ended == 1
        assert "until the relay stops: -policy" in found.sentence
        assert "line 2: unknown name rat" in found.sentence
        assert found.sentence.endswith("into that file by hand")
        assert path.read_text() == "[defaults]\nrat = 1\n"
        # The file that is read next takes nothing of it back.
        caplog.set_level(logging.INFO)
        path.write_text(f'[clients."{node_public_text(other.key)}"]\ndeny = true\n')
        filed.to_keeper.send_nowait(None)
        assert isinstance(await end_of(filed, other), NotAdmitted)
        assert not await filed.is_admitted(peer)
        (new,) = [each for each in caplog.records if each.getMessage() == "new policy"]
        assert new.__dict__["fields"]["by_command"] == 1
        # Once the file says it, the file is all that counts.
        key = node_public_text(peer.key)
        path.write_text(f'[clients."{key}"]\ndeny = true\n')
        filed.to_keeper.send_nowait(None)
        await trio.sleep(0.1)
        path.write_text("[defaults]\n")
        filed.to_keeper.send_nowait(None)
        await trio.sleep(0.1)
        assert await filed.is_admitted(peer)

    async def test_a_disk_that_does_not_answer(
        self, autojump_clock: Clock, filed: SteeredRelay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(*_: object) -> tuple[Policy | None, str]:
            await trio.sleep(2 * CHANGE_TIMEOUT)
            return None, "late"

        monkeypatch.setattr(policykeeper, "_write", never)
        with pytest.raises(SteeringFailed, match="not in force within 6 s"):
            await filed.steering.steer(Command("deny", bytes(32)), BY)


def test_a_change_takes_the_place_of_one_of_the_same_subject() -> None:
    key, source = bytes(32), PolicySource(None, Policy())
    for change in (
        Change(key, allowed=False),
        Change(key, rate="1 MB/s"),
        Change(key, allowed=True),
        Change(key, rate="2 MB/s"),
    ):
        source.change(change, None)
    assert source.read_changed(at_once=True) is None
    entry = source.policy.of(key)
    assert entry.allowed is True
    assert entry.limit is not None
    assert entry.limit.bytes_per_second == 2_000_000
    source.put(Policy(default=Entry(allowed=False)))
    assert source.policy.of(key) == attrs.evolve(entry)
