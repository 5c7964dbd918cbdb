"""A policy that changes while clients are connected: limits, denials, and what they are told."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing

from derp.admission.checker import Checker
from derp.admission.filewatch import CHECK_EVERY
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.policykeeper import PolicyRequest, keep_policy
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.errors import NotAdmitted
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.policy.model import Entry, Policy
from derp.session import recheck, serverinfo, turns
from derp.session.state import RelayState
from derp.wire.keys import node_public_text
from tests.peers import RECV, Peer
from tests.relays import Relay, running, with_mesh_key
from tests.support.threads import run_at_once
from tests.turns import Turns, counted_turns

Clock = trio.testing.MockClock

SERVER_INFO = 0x03
SLOW, FAST, OTHER = RateConfig(1000, 70_000), RateConfig(10**6, 10**6), RateConfig(5000, 80_000)


async def told(peer: Peer) -> int:
    """The rate of the next ServerInfo; 0 for no limit."""
    kind, payload = await peer.receive()
    assert kind == SERVER_INFO
    box = nacl.public.Box(peer.private, nacl.public.PublicKey(peer.server_key))
    info: dict[str, Any] = json.loads(box.decrypt(payload))
    return info.get("TokenBucketBytesPerSecond", 0)


def told_at_login(peer: Peer) -> int:
    return peer.server_info.get("TokenBucketBytesPerSecond", 0)


async def put(relay: Relay, policy: Policy) -> None:
    async with trio.open_nursery() as nursery:
        await serverinfo.apply_policy(relay.state, nursery, policy)


async def put_rate_config(relay: Relay, limit: RateConfig) -> None:
    async with trio.open_nursery() as nursery:
        serverinfo.apply(relay.state, nursery, limit)


async def test_each_key_has_its_limit_from_its_login_on(autojump_clock: Clock) -> None:
    one = nacl.public.PrivateKey.generate()
    async with running() as relay:
        key = bytes(one.public_key)
        await put(relay, Policy({key: Entry(limit=FAST)}, Entry(limit=SLOW)))
        assert told_at_login(await relay.login(key=one)) == FAST.bytes_per_second
        slow = await relay.login()
        assert told_at_login(slow) == SLOW.bytes_per_second
        start = trio.current_time()
        for _ in range(10):
            await slow.send_packet(slow.key, bytes(8000))
            await slow.receive_packet()
        await slow.ping()
        assert trio.current_time() - start > (80_000 - 70_000) / 1000 / 2


async def test_the_log_has_the_label_of_a_client(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = nacl.public.PrivateKey.generate()
    async with running() as relay:
        await put(relay, Policy({bytes(one.public_key): Entry("the laptop")}))
        await relay.login(key=one)
        await relay.login()
    joined = [each.__dict__["fields"] for each in caplog.records if each.msg == "joined"]
    assert [each.get("label") for each in joined] == ["the laptop", None]


async def test_only_those_whose_limit_has_changed_are_told(autojump_clock: Clock) -> None:
    async with running() as relay:
        one, two, three = [await relay.login() for _ in range(3)]
        await put(relay, Policy({one.key: Entry(limit=SLOW)}))
        assert await told(one) == SLOW.bytes_per_second
        await put_rate_config(relay, OTHER)
        await put(relay, Policy({one.key: Entry(limit=SLOW), two.key: Entry(limit=NO_LIMIT)}))
        assert [await told(two), await told(two)] == [OTHER.bytes_per_second, 0]
        assert await told(three) == OTHER.bytes_per_second
        await put_rate_config(relay, NO_LIMIT)
        await put(relay, Policy())
        assert await told(one) == 0
        assert await told(three) == 0
        for peer in (one, two, three):
            await peer.ping()


async def test_who_waits_for_a_limit_goes_on_when_it_is_lifted(autojump_clock: Clock) -> None:
    async with running() as relay:
        peer = await relay.login()
        await put(relay, Policy(default=Entry(limit=SLOW)))
        await told(peer)
        for _ in range(4):
            await peer.send_packet(peer.key, bytes(60_000))
        await trio.testing.wait_all_tasks_blocked()
        start, packets = trio.current_time(), 0
        await put(relay, Policy())
        while packets < 4:
            packets += (await peer.receive())[0] == RECV
        assert trio.current_time() - start < 3


async def test_a_limit_that_stays_keeps_what_is_used_of_it(autojump_clock: Clock) -> None:
    """A reload for another key's sake is no new burst."""
    async with running() as relay:
        peer = await relay.login()
        await put(relay, Policy({peer.key: Entry(limit=SLOW)}))
        (client,) = relay.hub.members
        bucket = client.bucket
        await put(relay, Policy({peer.key: Entry("a label", limit=SLOW), bytes(32): Entry()}))
        assert client.bucket is bucket


async def test_who_is_denied_is_ended_at_once(autojump_clock: Clock) -> None:
    async with running() as relay:
        denied, other = await relay.login(), await relay.login()
        again = await relay.login(key=denied.private)
        await put(relay, Policy({denied.key: Entry(allowed=False)}))
        for peer in (denied, again):
            end = await relay.end_of(peer)
            assert isinstance(end, NotAdmitted)
            assert str(end) == "no longer admitted by policy: the key is denied"
        await other.ping()


@contextmanager
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    """Count the clients that a new policy is compared with."""
    real = serverinfo.put_in_force
    with counted_turns() as counted:

        def counting(*arguments: Any) -> Any:
            counted.note()
            return real(*arguments)

        monkeypatch.setattr(serverinfo, "put_in_force", counting)
        yield counted


async def test_other_tasks_run_while_a_policy_is_put_in_force(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LOOKS_PER_TURN", 10)
    async with running() as relay:
        peers = [await relay.login() for _ in range(50)]
        with looked_at(monkeypatch) as counted:
            await put(relay, Policy(default=Entry(limit=SLOW)))
        assert counted.events.total() == len(peers)
        assert counted.most <= 10
        for peer in peers:
            assert await told(peer) == SLOW.bytes_per_second


async def test_a_change_for_one_key_looks_at_no_other(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as relay:
        one, two, other = [await relay.login() for _ in range(3)]
        entries = {other.key: Entry(limit=SLOW), two.key: Entry(limit=OTHER)}
        await put(relay, Policy(entries))
        assert [await told(two), await told(other)] == [5000, 1000]
        with looked_at(monkeypatch) as counted:
            await put(relay, Policy({one.key: Entry(limit=FAST), other.key: Entry(limit=SLOW)}))
        assert counted.events.total() == 2
        assert [await told(one), await told(two)] == [FAST.bytes_per_second, 0]


async def test_a_relay_that_stops_still_ends_whom_a_policy_denies(autojump_clock: Clock) -> None:
    """What owns its tasks may be over by then."""
    async with running() as relay:
        denied, other = await relay.login(), await relay.login()
        async with trio.open_nursery() as over:
            pass
        relay.state.stopping = True
        policy = Policy({denied.key: Entry(allowed=False), other.key: Entry(limit=SLOW)})
        assert await serverinfo.apply_policy(relay.state, over, policy) == 1
        serverinfo.apply(relay.state, over, FAST)
        assert isinstance(await relay.end_of(denied), NotAdmitted)
        await other.ping()


async def test_mesh_peers_are_not_asked_about(autojump_clock: Clock) -> None:
    async with running(with_mesh_key) as relay:
        peer = await relay.mesh_login()
        await put(relay, Policy(default=Entry(allowed=False, limit=SLOW)))
        another = await relay.mesh_login()
        assert told_at_login(another) == 0
        await peer.ping()


async def test_who_is_denied_between_the_verdict_and_the_login_does_not_join(
    autojump_clock: Clock,
) -> None:
    class Slow:
        def known(self, question: Question) -> Verdict | None:
            return None

        async def admit(self, question: Question) -> Verdict:
            await trio.sleep(3.0)
            return Verdict(Outcome.ALLOWED, "tailscaled")

        recheck = admit

    def prepare(state: RelayState) -> None:
        state.admission = Slow()

    async with running(prepare) as relay:
        peer = relay.connect()
        await peer.receive()
        await peer.end.send(peer.client_info(relay.state.public_key))
        await trio.sleep(1.0)
        await put(relay, Policy(default=Entry(allowed=False)))
        end = await relay.end_of(peer)
        assert isinstance(end, NotAdmitted)
        text = node_public_text(peer.key)
        assert str(end) == f"{text} is refused by policy: the key is denied"


async def test_a_verdict_that_is_known_is_not_waited_for(autojump_clock: Clock) -> None:
    """To wait for a list or a policy would cost each login a turn of its own."""

    class Known:
        def known(self, question: Question) -> Verdict:
            return Verdict(Outcome.ALLOWED, "the list")

        async def admit(self, question: Question) -> Verdict:
            raise AssertionError(question)

        recheck = admit

    def prepare(state: RelayState) -> None:
        state.admission = Known()

    async with running(prepare) as relay:
        await relay.login()


class Followed:
    """A relay whose policy is a file."""

    def __init__(self, relay: Relay, path: Path, wake: trio.MemorySendChannel[None]) -> None:
        self.relay = relay
        self._path = path
        self._wake = wake

    def write(self, *lines: str) -> None:
        self._path.write_text("\n".join(lines))

    async def reload(self, *lines: str) -> None:
        self.write(*lines)
        self._wake.send_nowait(None)
        await trio.sleep(0.1)


@pytest.fixture
async def followed(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Followed]:
    run_at_once(monkeypatch)
    source = PolicySource(tmp_path / "policy.toml", Policy())
    checkers: list[Checker] = []

    def prepare(state: RelayState) -> None:
        state.admission = Checker(state.metrics, Sources(policy=source))
        checkers.append(state.admission)

    wake, woken = trio.open_memory_channel[PolicyRequest](1)
    async with running(prepare) as relay, trio.open_nursery() as nursery:

        async def apply(policy: Policy) -> int:
            return await serverinfo.apply_policy(relay.state, nursery, policy)

        removed = partial(recheck.recheck, relay.state, checkers[0], strict=True)
        nursery.start_soon(keep_policy, source, checkers[0], woken, apply, removed)
        yield Followed(relay, source.path, wake)
        nursery.cancel_scope.cancel()


def entry(peer: Peer) -> str:
    return f'[clients."{node_public_text(peer.key)}"]'


async def test_a_changed_file_counts_by_itself(autojump_clock: Clock, followed: Followed) -> None:
    peer, other = await followed.relay.login(), await followed.relay.login()
    followed.write("[defaults]", 'rate = "1 Mbit/s"', entry(other), "deny = true")
    await trio.sleep(3 * CHECK_EVERY)
    assert await told(peer) == 125_000
    assert isinstance(await followed.relay.end_of(other), NotAdmitted)
    back = followed.relay.connect(key=other.private)
    await back.receive()
    await back.end.send(back.client_info(followed.relay.state.public_key))
    assert isinstance(await followed.relay.end_of(back), NotAdmitted)


async def test_a_mistake_leaves_the_old_policy_in_force(
    autojump_clock: Clock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await followed.relay.login()
    await followed.reload("[defaults]", 'rate = "1 Mbit/s"')
    assert await told(peer) == 125_000
    await followed.reload("[defaults]", "", 'rate = "10"', "deny = true")
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == "the old policy stays in force"
    assert 'line 3: rate 10: want a rate such as "10 Mbit/s"' in record.__dict__["fields"]["reason"]
    assert told_at_login(await followed.relay.login()) == 125_000
    await followed.reload("[defaults]", 'rate = "2 Mbit/s"')
    assert await told(peer) == 250_000


async def test_who_is_no_longer_allowed_is_ended_where_others_are_denied(
    autojump_clock: Clock, followed: Followed
) -> None:
    peer, other = await followed.relay.login(), await followed.relay.login()
    both = [entry(peer), "allow = true", entry(other), "allow = true"]
    await followed.reload("[defaults]", "deny = true", *both)
    assert len(followed.relay.hub.members) == 2
    await followed.reload("[defaults]", "deny = true", *both[:2])
    assert isinstance(await followed.relay.end_of(other), NotAdmitted)
    await followed.reload("[defaults]")
    await followed.relay.login(key=other.private)


async def test_who_is_no_longer_allowed_is_asked_about(
    autojump_clock: Clock, followed: Followed
) -> None:
    peer = await followed.relay.login()
    await followed.reload(entry(peer), "allow = true")
    checker = followed.relay.state.admission
    assert isinstance(checker, Checker)
    asked: list[bytes] = []

    async def refuse(question: Question) -> Verdict:
        asked.append(question.key)
        return Verdict(Outcome.REFUSED, "tailscaled", "not known")

    checker.recheck = refuse  # type: ignore[method-assign]
    await followed.reload(entry(peer), 'label = "only"')
    assert asked == [peer.key]
    end = await followed.relay.end_of(peer)
    assert str(end) == "no longer admitted by tailscaled: not known"
