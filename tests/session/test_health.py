"""Clients are told what is wrong, once for each change, and that it is over."""

import logging
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

import attrs
import nacl.public
import pytest
import trio
import trio.testing

from derp.accounts.counts import Counts, Period
from derp.accounts.keeper import FLUSH_EVERY, Accounts
from derp.accounts.memorysink import MemorySink
from derp.admission.model import Outcome, Question, Verdict
from derp.errors import NotAdmitted, PeerVanished
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.net.address import Endpoint
from derp.net.tcp import TCPTransport
from derp.policy.model import Entry, Policy, Quota
from derp.relay.clones import Clones
from derp.relay.health import Refusal
from derp.session import accounting, health, recheck, review, serverinfo, turns
from derp.session.health import TOLD
from derp.session.serve import serve
from derp.session.state import RelayState
from derp.wire.frames import PresentFlags, peer_present
from tests.peers import Peer
from tests.relays import Relay, running, with_mesh_key
from tests.support.derp import HEALTH, SERVER_INFO
from tests.support.ends import StreamEnd
from tests.turns import counted_turns

Clock = trio.testing.MockClock
NOON = 1_796_126_400.0  # 2026-12-01 12:00 UTC
SLOW, FAST = RateConfig(125_000, 70_000), RateConfig(1_250_000, 10**6)
USED = "this device has used up its quota of "
HOME, AWAY = Endpoint("192.0.2.7", 40_000), Endpoint("198.51.100.9", 40_000)


class Kept:
    """A relay with accounts, which are reviewed, and a wall clock that can be set."""

    def __init__(self) -> None:
        self.wall = NOON
        self.accounts = Accounts(MemorySink(), FLUSH_EVERY, lambda: self.wall)
        self.relay: Relay | None = None

    @property
    def state(self) -> RelayState:
        assert self.relay is not None
        return self.relay.state

    def prepare(self, state: RelayState) -> None:
        state.accounts = state.usage = self.accounts

    async def start(self, relay: Relay, nursery: trio.Nursery) -> None:
        self.relay = relay

        async def collect() -> None:
            await accounting.collect(relay.state)

        nursery.start_soon(self.accounts.run, collect)
        nursery.start_soon(review.run, relay.state, Clones(review.grace(15.0)))

    async def put(self, nursery: trio.Nursery, policy: Policy) -> None:
        await serverinfo.apply_policy(self.state, nursery, policy)


@pytest.fixture
async def kept(autojump_clock: Clock, nursery: trio.Nursery) -> Any:
    made = Kept()
    async with running(made.prepare) as relay:
        await made.start(relay, nursery)
        yield made


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The texts that the log has."""
    return [each.__dict__["fields"]["text"] for each in caplog.records if each.msg == TOLD]


async def told(peer: Peer) -> str:
    """The text of the next Health frame; there may be keep-alives before it, and ServerInfo."""
    while (frame := await peer.receive())[0] != HEALTH:
        assert frame[0] in {0x06, SERVER_INFO}, frame
    return frame[1].decode()


async def nothing_more(peer: Peer, seconds: float = 200.0) -> None:
    """Nothing but keep-alives comes."""
    with trio.move_on_after(seconds):
        while True:
            assert (await peer.receive())[0] == 0x06


async def knock(relay: Relay, key: nacl.public.PrivateKey) -> tuple[list[tuple[int, str]], Any]:
    """Log in and be refused; return what came behind the greeting, and how it ended."""
    peer = relay.connect(key=key)
    await peer.receive()
    await peer.end.send(peer.client_info(relay.state.public_key))
    end = await relay.end_of(peer)
    came = []
    with suppress(EOFError, PeerVanished):
        while True:
            kind, payload = await peer.receive()
            came.append((kind, payload.decode()))
    return came, end


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        for each in (ours, theirs):
            each.setblocking(False)
        yield ours, theirs


# --- quotas ---


async def test_three_clients_over_their_quota_and_a_new_day(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """One is throttled, one ended, and one has a higher quota; then the clock jumps."""
    caplog.set_level(logging.INFO)
    relay = kept.relay
    throttled, refused, free = [await relay.login() for _ in range(3)]
    quota = Quota(5_000, Period.DAY, SLOW)
    policy = Policy(
        {
            throttled.key: Entry(limit=FAST, quota=quota),
            refused.key: Entry(quota=Quota(5_000, Period.DAY, None)),
            free.key: Entry(quota=Quota(10**9, Period.DAY, None)),
        }
    )
    await kept.put(nursery, policy)
    assert (await throttled.receive())[0] == SERVER_INFO
    for peer in (throttled, refused, free):
        await peer.send_packet(peer.key, bytes(6_000))
        await peer.receive_packet()
    began = trio.current_time()
    # The limit first: a client forgets the text at each ServerInfo.
    assert (await throttled.receive())[0] == SERVER_INFO
    assert trio.current_time() - began <= FLUSH_EVERY
    kind, said = await throttled.receive()
    assert (kind, said.decode()) == (
        HEALTH,
        USED + "5 kB/day here, and is slowed down to 1 Mbit/s until 2026-12-02 00:00 UTC",
    )
    end = await relay.end_of(refused)
    assert str(end) == "no longer admitted by policy: over its quota for this day in -policy"
    over = "5 kB/day here, and is refused until 2026-12-02 00:00 UTC"
    assert f"{USED}{over}" in logged(caplog)
    await nothing_more(free)
    await nothing_more(throttled)

    kept.wall += 86_400
    began = trio.current_time()
    assert (await throttled.receive())[0] == SERVER_INFO
    assert trio.current_time() - began <= FLUSH_EVERY
    await trio.sleep(1)
    (member,) = relay.hub.clients(throttled.key)
    assert member.health == ""
    assert member.bucket is not None
    assert member.bucket.rate == FAST.bytes_per_second
    back = await relay.login(key=refused.private)
    for peer in (throttled, free, back):
        await nothing_more(peer)


async def test_a_throttle_that_lowers_nothing_is_told_and_withdrawn(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery
) -> None:
    """No ServerInfo comes with it, so an empty text has to."""
    peer = await kept.relay.login()
    entry = Entry(limit=SLOW, quota=Quota(1, Period.MONTH, FAST))
    await kept.put(nursery, Policy({peer.key: entry}))
    assert (await peer.receive())[0] == SERVER_INFO
    assert await told(peer) == USED + "1 B/month here, until 2027-01-01 00:00 UTC"
    kept.wall += 31 * 86_400
    assert (await peer.receive()) == (HEALTH, b"")
    kept.accounts.add(peer.key, Counts(sent=1))
    assert await told(peer) == USED + "1 B/month here, until 2027-02-01 00:00 UTC"
    await kept.put(nursery, Policy({peer.key: Entry(limit=SLOW)}))
    assert (await peer.receive()) == (HEALTH, b"")
    await nothing_more(peer)


async def test_a_default_quota_is_each_keys_own(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery
) -> None:
    await kept.put(nursery, Policy(default=Entry(quota=Quota(50_000, Period.DAY, SLOW))))
    one, other = await kept.relay.login(), await kept.relay.login()
    for _ in range(3):
        await one.send_packet(one.key, bytes(20_000))
        await one.receive_packet()
    assert "and is slowed down to 1 Mbit/s" in await told(one)
    await nothing_more(other)
    # The next connection of the key is told at its login.
    again = await kept.relay.login(key=one.private)
    assert again.server_info["TokenBucketBytesPerSecond"] == SLOW.bytes_per_second
    assert "and is slowed down to 1 Mbit/s" in await told(again)


async def test_a_changed_limit_makes_a_client_forget_so_it_is_told_again(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery
) -> None:
    peer = await kept.relay.login()
    quota = Quota(1, Period.DAY, FAST)
    await kept.put(nursery, Policy({peer.key: Entry(quota=quota)}))
    assert (await peer.receive())[0] == SERVER_INFO
    said = await told(peer)
    serverinfo.apply(kept.state, nursery, SLOW)
    assert (await peer.receive())[0] == SERVER_INFO
    assert await told(peer) == said.replace("and is slowed down to 10 Mbit/s ", "")
    serverinfo.apply(kept.state, nursery, NO_LIMIT)
    assert (await peer.receive())[0] == SERVER_INFO
    assert await told(peer) == said


async def test_who_is_over_quota_hears_it_at_each_try_whatever_else_is_told(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery
) -> None:
    key = nacl.public.PrivateKey.generate()
    quota = Quota(1_000, Period.MONTH, None)
    await kept.put(nursery, Policy({bytes(key.public_key): Entry(quota=quota)}))
    kept.accounts.add(bytes(key.public_key), Counts(sent=400, received=600))
    for _ in range(2):
        came, end = await knock(kept.relay, key)
        assert came == [
            (HEALTH, USED + "1 kB/month here, and is refused until 2027-01-01 00:00 UTC")
        ]
        assert isinstance(end, NotAdmitted)


async def test_a_slow_disk_delays_no_review(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    class Stuck(MemorySink):
        async def write(self, *_: object) -> Any:
            await trio.sleep(10_000)

    kept = Kept()
    kept.accounts = Accounts(Stuck(), FLUSH_EVERY, lambda: kept.wall)
    async with running(kept.prepare) as relay:
        await kept.start(relay, nursery)
        peer = await relay.login()
        await kept.put(nursery, Policy({peer.key: Entry(quota=Quota(100, Period.DAY, SLOW))}))
        await trio.sleep(1)
        kept.accounts.add(peer.key, Counts(sent=100))
        began = trio.current_time()
        assert USED in await told(peer)
        assert trio.current_time() - began <= review.REVIEW_EVERY


async def test_mesh_peers_have_no_quota(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    kept = Kept()

    def prepare(state: RelayState) -> None:
        kept.prepare(state)
        with_mesh_key(state)

    async with running(prepare) as relay:
        await kept.start(relay, nursery)
        await kept.put(nursery, Policy(default=Entry(quota=Quota(1, Period.DAY, None))))
        peer = await relay.mesh_login()
        await nothing_more(peer)
        assert [member.can_mesh for member in relay.hub.members] == [True]


async def test_other_tasks_run_while_many_are_over_quota(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LOOKS_PER_TURN", 10)
    peers = [await kept.relay.login() for _ in range(100)]
    with counted_turns() as counted:
        real = serverinfo.put_in_force

        def counting(*arguments: Any) -> Any:
            counted.note()
            return real(*arguments)

        monkeypatch.setattr(serverinfo, "put_in_force", counting)
        kept.state.policy = Policy(default=Entry(quota=Quota(1, Period.DAY, SLOW)))
        for peer in peers:
            assert USED in await told(peer)
        assert counted.most <= 10
    members = list(kept.state.hub.members)
    with counted_turns() as counted:
        real_tell = health.tell

        def counting_tell(*arguments: Any, **options: Any) -> None:
            counted.note()
            real_tell(*arguments, **options)

        monkeypatch.setattr(health, "tell", counting_tell)
        async with trio.open_nursery() as inner:
            changed = [(member, member.bucket) for member in members]
            inner.start_soon(serverinfo._tell_all, kept.state, members, changed)
        assert counted.most <= serverinfo.CLIENTS_PER_TURN


# --- cloned keys ---


async def test_a_cloned_key_is_told_to_both_and_withdrawn(
    autojump_clock: Clock, kept: Kept
) -> None:
    one = await kept.relay.login(client=HOME)
    await nothing_more(one)
    began = trio.current_time()
    other = await kept.relay.login(client=AWAY, key=one.private)
    for peer in (one, other):
        assert "key is in use at two addresses at once" in await told(peer)
    least = review.grace(15.0)
    assert least <= trio.current_time() - began <= least + review.REVIEW_EVERY
    await nothing_more(one)
    third = await kept.relay.login(client=AWAY, key=one.private)
    # Known already, so told at its login.
    assert "key is in use at two addresses at once" in await told(third)
    for peer in (other, third):
        await peer.end.aclose()
    while (frame := await one.receive())[0] == 0x06:
        pass
    assert frame == (HEALTH, b"")
    await nothing_more(one)


async def test_connections_from_one_address_are_no_clones(
    autojump_clock: Clock, kept: Kept
) -> None:
    one = await kept.relay.login(client=HOME)
    same = Endpoint(HOME.host, HOME.port + 1)
    other = await kept.relay.login(client=same, key=one.private)
    for peer in (one, other):
        await nothing_more(peer)


async def test_a_client_that_has_moved_is_no_clone(autojump_clock: Clock, kept: Kept) -> None:
    """Its old connection stays until TCP gives it up."""
    old = await kept.relay.login(client=HOME)
    new = await kept.relay.login(client=AWAY, key=old.private)
    await trio.sleep(review.grace(15.0) - 1)
    await old.end.aclose()
    await nothing_more(new)


async def test_without_accounts_clones_are_found_too(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async with running() as relay:
        nursery.start_soon(review.run, relay.state, Clones(30.0))
        one = await relay.login(client=HOME)
        other = await relay.login(client=AWAY, key=one.private)
        for peer in (one, other):
            assert "key is in use at two addresses at once" in await told(peer)
        assert trio.current_time() <= 30.0 + review.REVIEW_EVERY


class Link:
    """Another worker with one client."""

    def __init__(self, key: bytes, host: str) -> None:
        self.frames = {key: peer_present(key, host, 1, PresentFlags.REGULAR)}

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        raise AssertionError

    forward = send_control


@pytest.mark.parametrize("is_higher", [False, True], ids=["active here", "active there"])
@pytest.mark.parametrize("host", [HOME.host, AWAY.host], ids=["the same", "another"])
async def test_a_key_at_another_worker(
    autojump_clock: Clock, nursery: trio.Nursery, is_higher: bool, host: str
) -> None:
    def prepare(state: RelayState) -> None:
        state.become_worker(0, bytes(32))

    async with running(prepare) as relay:
        clones = Clones(30.0)
        nursery.start_soon(review.run, relay.state, clones)
        one = await relay.login(client=HOME)
        bystander = await relay.login(client=HOME)
        link = Link(one.key, host)
        relay.state.worker_links[link] = None
        relay.hub.add_claim(one.key, link, 1 << 80 if is_higher else 1)
        if host == HOME.host:
            await nothing_more(one)
        else:
            assert "key is in use at two addresses at once" in await told(one)
        relay.hub.remove_claim(one.key, link)
        del relay.state.worker_links[link]
        if host != HOME.host:
            assert await told(one) == ""
        for peer in (one, bystander):
            await nothing_more(peer)


# --- refused ---


class Source:
    """An Admission that says what a test wants."""

    def __init__(self, outcome: Outcome, name: str = "tailscaled") -> None:
        self.verdict = Verdict(outcome, name, "reasons of our own")

    def known(self, question: Question) -> Verdict | None:
        return None

    async def admit(self, question: Question) -> Verdict:
        await trio.lowlevel.checkpoint()
        return self.verdict

    recheck = admit


@pytest.mark.parametrize(
    ("outcome", "name", "refusal"),
    [
        (Outcome.REFUSED, "policy", Refusal.DENIED),
        (Outcome.REFUSED, "tailscaled", Refusal.UNKNOWN),
        (Outcome.LATE, "https://user:secret@example.com", Refusal.UNVERIFIED),
    ],
)
@pytest.mark.parametrize("allowed", [True, False], ids=["told", "not told"])
async def test_who_is_refused_is_told_if_the_operator_says_so(
    autojump_clock: Clock, outcome: Outcome, name: str, refusal: Refusal, allowed: bool
) -> None:
    def prepare(state: RelayState) -> None:
        state.admission = Source(outcome, name)
        state.tell_refused = allowed

    async with running(prepare) as relay:
        came, end = await knock(relay, nacl.public.PrivateKey.generate())
        assert isinstance(end, NotAdmitted)
        # In fixed words, none of the source's.
        assert came == ([(HEALTH, refusal.value)] if allowed else [])
        assert str(end).endswith(f"is refused by {name}: reasons of our own")


@pytest.mark.parametrize(
    ("over_quota", "quota", "said"),
    [
        (False, Quota(1, Period.DAY, None), Refusal.DENIED.value),
        (False, Quota(1, Period.DAY, SLOW), Refusal.DENIED.value),
        (True, Quota(1, Period.DAY, SLOW), ""),
        (True, None, ""),
        (True, Quota(5_000, Period.DAY, None), f"{USED}5 kB/day here, and is refused "),
    ],
)
async def test_a_refusal_is_told_for_the_reason_that_it_has(
    autojump_clock: Clock, over_quota: bool, quota: Quota | None, said: str
) -> None:
    """The policy may have changed since the verdict."""

    def prepare(state: RelayState) -> None:
        state.admission = source = Source(Outcome.REFUSED, "policy")
        source.verdict = attrs.evolve(source.verdict, over_quota=over_quota)
        state.policy = Policy(default=Entry(quota=quota))
        state.tell_refused = True

    async with running(prepare) as relay:
        came, _ = await knock(relay, nacl.public.PrivateKey.generate())
        assert [text.partition("until ")[0] for _, text in came] == ([said] if said else [])


async def test_a_fast_start_that_is_refused_has_the_greeting_first(autojump_clock: Clock) -> None:
    def prepare(state: RelayState) -> None:
        state.admission = Source(Outcome.REFUSED)
        state.tell_refused = True

    async with running(prepare) as relay:
        peer = Peer(None)
        leftover = peer.client_info(relay.state.public_key)
        connected = relay.connect(leftover=leftover + b"more that is not read")
        assert [(await connected.receive())[0] for _ in range(2)] == [0x01, HEALTH]
        with pytest.raises(EOFError):
            await connected.receive()


@pytest.mark.parametrize("how", ["takes nothing", "is gone"])
async def test_who_does_not_take_the_text_is_refused_all_the_same(
    autojump_clock: Clock, how: str
) -> None:
    def prepare(state: RelayState) -> None:
        state.admission = Source(Outcome.REFUSED)
        state.tell_refused = True

    async with running(prepare) as relay:
        peer = relay.connect(capacity=60)
        await peer.receive()
        await peer.end.send(peer.client_info(relay.state.public_key))
        began = trio.current_time()
        if how == "is gone":
            peer.end.abort()
        assert isinstance(await relay.end_of(peer), NotAdmitted | PeerVanished)
        assert trio.current_time() - began <= health.TELL_TIMEOUT


@pytest.mark.parametrize("allowed", [True, False], ids=["told", "not told"])
async def test_who_is_no_longer_admitted_is_told_before_the_end(
    nursery: trio.Nursery, allowed: bool
) -> None:
    """Over TCP, as what the kernel has taken is delivered although the connection is closed."""
    async with running() as relay, AsyncExitStack() as stack:
        relay.state.tell_refused = allowed
        nursery.start_soon(relay.state.poller.run)

        async def join() -> Peer:
            ours, theirs = stack.enter_context(tcp_pair())

            async def connection() -> None:
                with suppress(NotAdmitted):
                    await serve(
                        relay.state, TCPTransport(theirs, HOME, AWAY), b"", {}, not_ideal=False
                    )

            nursery.start_soon(connection)
            end = StreamEnd(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
            return await Peer(end).log_in()

        denied, removed = await join(), await join()
        await serverinfo.apply_policy(
            relay.state, nursery, Policy({denied.key: Entry(allowed=False)})
        )
        await recheck.recheck(relay.state, Source(Outcome.REFUSED), [removed.key])
        for peer, refusal in ((denied, Refusal.DENIED), (removed, Refusal.UNKNOWN)):
            if allowed:
                assert await peer.receive() == (HEALTH, refusal.encode())
            with pytest.raises(EOFError):
                await peer.receive()


# --- the relay ---


async def test_what_is_told_is_logged_within_a_bound(
    autojump_clock: Clock, kept: Kept, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    peer = await kept.relay.login()
    kept.accounts.add(peer.key, Counts(sent=1))
    for _ in range(10):
        await kept.put(nursery, Policy({peer.key: Entry(quota=Quota(1, Period.DAY, SLOW))}))
        await trio.sleep(0.1)
        # A new limit makes the client forget, and is no news.
        serverinfo.apply(kept.state, nursery, FAST)
        serverinfo.apply(kept.state, nursery, NO_LIMIT)
        await trio.sleep(0.1)
        await kept.put(nursery, Policy())
        await trio.sleep(0.1)
    said = logged(caplog)
    assert all(USED in text for text in said[::2])
    assert said[1::2] == ["all is well again"] * 2
    assert len(said) == 5
