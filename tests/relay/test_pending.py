"""Pending connections: who is refused, who has to go, and what is remembered."""

import contextlib
from ipaddress import ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from derp.errors import ConnectionEnd, NoRoom, TooManyConnections, TooManyPending
from derp.relay.networks import network_of
from derp.relay.pending import (
    BURST_SECONDS,
    COST,
    EVICTABLE_AFTER,
    EVICTION_RATIO,
    MAX_IDLE,
    MEMORY,
    RESERVE,
    SPARE,
    VERDICT_COST,
    Pending,
    PendingConnections,
)
from tests.support.examples import examples

ATTACKER, OTHER = "192.0.2.7", "198.51.100.7"
LATER = 1000.0


def fill(connections: PendingConnections, host: str, now: float = 0.0) -> list[Pending]:
    """Connect until there is no room."""
    admitted = []
    with contextlib.suppress(ConnectionEnd):
        while len(admitted) < 10_000:
            admitted.append(connections.admit(host, now))
    return admitted


def room_for(count: int) -> int:
    """The memory in which so many connections find room beside the part for this machine."""
    memory = count * COST
    while memory - memory // RESERVE < count * COST:
        memory += COST // 8
    return memory


class TestRate:
    def test_a_network_has_its_rate_and_another_one_has_its_own(self) -> None:
        connections = PendingConnections(rate=10)
        for _ in range(int(10 * BURST_SECONDS)):
            connections.admit(ATTACKER, 0).done()
        with pytest.raises(TooManyConnections, match=r"10 new .* a second from 192\.0\.2\.0/24$"):
            connections.admit("192.0.2.99", 0)
        connections.admit(OTHER, 0)
        connections.admit(ATTACKER, 0.11).done()
        with pytest.raises(TooManyConnections):
            connections.admit(ATTACKER, 0.11)

    def test_an_ipv6_network_is_of_64_bits(self) -> None:
        connections = PendingConnections(rate=0.5)
        connections.admit("2001:db8::1", 0)
        with pytest.raises(TooManyConnections, match=r"from 2001:db8::/64$"):
            connections.admit("2001:db8::ffff:0:1", 0)
        connections.admit("2001:db8:0:1::1", 0)

    @pytest.mark.parametrize("rate", [0.1, 1, 500])
    def test_to_be_idle_is_no_way_to_more(self, rate: float) -> None:
        """Over a long time a network makes no more connections than the rate, and one burst."""
        connections = PendingConnections(rate=rate)
        made, now = 0, 0.0
        while now < 100 / rate:
            try:
                connections.admit(ATTACKER, now).done()
                made += 1
            except TooManyConnections:
                # Others come meanwhile, which is when the idle are forgotten.
                now += 1.01 / rate
                connections.admit(OTHER, now).done()
        assert made <= 100 + max(1, rate * BURST_SECONDS) + 1

    def test_zero_is_no_limit(self) -> None:
        connections = PendingConnections()
        for _ in range(10_000):
            connections.admit(ATTACKER, 0).done()
        assert len(connections) == connections.held == 0


class TestMost:
    def test_those_who_have_just_come_are_not_driven_out(self) -> None:
        connections = PendingConnections(max_pending=3)
        admitted = [connections.admit(ATTACKER, 0) for _ in range(3)]
        with pytest.raises(TooManyPending, match=r"^3 connections from 192\.0\.2\.0/24 have"):
            connections.admit(ATTACKER, EVICTABLE_AFTER / 2)
        connections.admit(OTHER, EVICTABLE_AFTER / 2)
        assert [pending.end for pending in admitted] == [None] * 3

    def test_later_the_oldest_makes_room(self) -> None:
        connections = PendingConnections(max_pending=3)
        aborted = []
        admitted = [connections.admit(ATTACKER, 0) for _ in range(3)]
        admitted[0].abort = lambda: aborted.append(0)
        admitted[0].cancel = lambda: aborted.append("cancelled")
        connections.admit(ATTACKER, EVICTABLE_AFTER)
        assert aborted == [0, "cancelled"]
        assert isinstance(admitted[0].end, TooManyPending)
        assert [pending.end for pending in admitted[1:]] == [None] * 2
        assert len(connections) == 3

    def test_who_has_logged_in_counts_no_longer(self) -> None:
        connections = PendingConnections(max_pending=3)
        for _ in range(10):
            connections.admit(ATTACKER, 0).log_in()
        assert len(connections) == 0

    def test_room_made_for_the_network_is_room_enough(self) -> None:
        connections = PendingConnections(max_pending=1)
        other = connections.admit(OTHER, 0)
        connections.admit(ATTACKER, 0)
        connections.admit(ATTACKER, EVICTABLE_AFTER, no_descriptor=True)
        assert other.end is None


class TestRoom:
    def test_the_memory_is_bounded(self) -> None:
        connections = PendingConnections()
        admitted = fill(connections, ATTACKER)
        assert len(admitted) == (MEMORY - MEMORY // RESERVE) // COST
        assert connections.held == len(admitted) * COST <= MEMORY

    @pytest.mark.parametrize("full", [False, True])
    def test_whoever_has_most_by_far_pays(self, full: bool) -> None:
        connections = PendingConnections(memory=room_for(100))
        first = connections.admit(OTHER, 0)
        held = [connections.admit(ATTACKER, 1) for _ in range(99)]
        # Each of 60 networks has its newcomer, at once.
        for n in range(60):
            connections.admit(f"203.0.{n}.1", 1, no_descriptor=full)
        assert first.end is None
        assert all(isinstance(pending.end, NoRoom) for pending in held[:60])
        assert all(pending.end is None for pending in held[60:])

    def test_many_networks_of_one_site_are_one(self) -> None:
        connections = PendingConnections(memory=room_for(100), max_pending=2)
        held = [connections.admit(f"2001:db8:7:{n:x}::1", 0) for n in range(100)]
        connections.admit("2001:db8:8::1", 0)
        assert isinstance(held[0].end, NoRoom)
        with pytest.raises(NoRoom):
            connections.admit("2001:db8:7:ffff::1", 0)
        connections.admit("2001:db8:7:ffff::1", EVICTABLE_AFTER)
        assert isinstance(held[1].end, NoRoom)

    def test_the_network_that_has_most_makes_room_for_itself_only(self) -> None:
        connections = PendingConnections(memory=room_for(100))
        others = [connections.admit(OTHER, 0) for _ in range(5)]
        held = fill(connections, ATTACKER, 1)
        connections.admit(ATTACKER, 1 + EVICTABLE_AFTER)
        assert held[0].end is not None
        assert [pending.end for pending in others] == [None] * 5

    def test_where_nobody_has_most_the_oldest_goes_once_it_had_its_time(self) -> None:
        connections = PendingConnections(memory=room_for(100))
        admitted = [connections.admit(f"203.0.{n}.1", n / 1000) for n in range(100)]
        with pytest.raises(NoRoom):
            connections.admit(OTHER, EVICTABLE_AFTER - 0.001)
        connections.admit(OTHER, EVICTABLE_AFTER)
        assert [pending.end is None for pending in admitted[:2]] == [False, True]

    def test_where_all_have_logged_in_there_is_nobody_to_go(self) -> None:
        connections = PendingConnections()
        connections.admit(ATTACKER, 0).log_in()
        with pytest.raises(NoRoom):
            connections.admit(OTHER, LATER, no_descriptor=True)

    def test_a_newcomer_that_is_refused_drives_nobody_out(self) -> None:
        connections = PendingConnections(rate=1, memory=room_for(100))
        held = [connections.admit(f"203.0.{n}.1", 0) for n in range(99)]
        connections.admit(ATTACKER, LATER).done()
        connections.admit(ATTACKER, LATER)
        with pytest.raises(TooManyConnections):
            connections.admit(ATTACKER, LATER, no_descriptor=True)
        assert [pending.end for pending in held] == [None] * 99

    def test_a_part_is_for_this_machine(self) -> None:
        connections = PendingConnections()
        for n in range(len(fill(PendingConnections(), ATTACKER))):
            connections.admit(f"203.{n // 250}.{n % 250}.1", 0)
        with pytest.raises(NoRoom):
            connections.admit(OTHER, 0)
        assert len(fill(connections, "127.0.0.1")) == MEMORY // RESERVE // COST
        assert connections.held == MEMORY

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3"])
    def test_proxies_have_no_limits_but_the_memory(self, host: str) -> None:
        connections = PendingConnections(rate=1, max_pending=1, proxies=[ip_network("10.0.0.0/8")])
        admitted = fill(connections, host)
        assert len(admitted) >= (MEMORY - MEMORY // RESERVE) // COST
        assert connections.network_of(host) is None
        connections.admit(OTHER, EVICTABLE_AFTER)
        assert admitted[0].end is not None

    def test_the_rest_of_the_loopback_network_is_like_any_other(self) -> None:
        assert PendingConnections().network_of("127.0.1.1") == "127.0.1.0/24"


class TestHolding:
    def test_an_ordinary_login_counts_for_what_every_connection_does(self) -> None:
        connections = PendingConnections()
        pending = connections.admit(OTHER, 0)
        pending.hold(SPARE)
        assert connections.held == COST
        pending.hold(SPARE + 100_000)
        assert connections.held == COST + 100_000
        pending.hold(0)
        assert connections.held == COST
        pending.hold(200_000)
        pending.log_in()
        assert connections.held == 0
        pending.hold(300_000)
        assert connections.held == 0

    def test_who_wants_more_than_there_is_pays_himself(self) -> None:
        connections = PendingConnections(memory=room_for(100))
        held = fill(connections, ATTACKER)
        other = held[50]
        with pytest.raises(NoRoom, match="memory"):
            other.hold(SPARE + COST)
        assert connections.held <= room_for(100)
        other.done()
        assert len(connections) == len(held) - 1
        held[0].hold(SPARE + COST)

    def test_who_was_ended_hears_so_with_the_next_step(self) -> None:
        connections = PendingConnections(max_pending=1)
        pending = connections.admit(ATTACKER, 0)
        second = connections.admit(ATTACKER, EVICTABLE_AFTER)
        for step in (lambda: pending.hold(1), pending.log_in):
            with pytest.raises(TooManyPending, match="this was the oldest"):
                step()
        pending.done()
        second.log_in()
        assert len(connections) == connections.held == 0

    def test_a_hoard_of_bytes_counts_like_one_of_connections(self) -> None:
        connections = PendingConnections(memory=room_for(1000))
        hoarder = [connections.admit(ATTACKER, 0) for _ in range(4)]
        for pending in hoarder:
            pending.hold(256 << 10)
        assert connections.held > (EVICTION_RATIO + 1) * COST
        connections.admit(OTHER, 0, no_descriptor=True)
        assert hoarder[0].end is not None


class TestWaitingForAVerdict:
    def test_as_many_as_have_no_more_than_that_find_room(self) -> None:
        connections = PendingConnections(memory=room_for(100))
        # The last needs more for a moment, until it waits.
        for number in range(100 * COST // VERDICT_COST - 1):
            connections.admit(f"203.0.{number}.1", 0).begin_verdict(10.0, 0)
        with pytest.raises(NoRoom):
            connections.admit(OTHER, EVICTABLE_AFTER)

    def test_a_newcomer_may_take_the_room_of_two(self) -> None:
        connections = PendingConnections(memory=room_for(10))
        for number in range(10 * COST // VERDICT_COST - 1):
            connections.admit(f"203.0.{number}.1", 0).begin_verdict(0.0, 0)
        connections.admit("203.0.99.1", 0.0 + EVICTABLE_AFTER)
        waiting = len(connections)
        assert not connections.admit(OTHER, EVICTABLE_AFTER).end
        assert len(connections) == waiting - 1
        assert connections.held <= 10 * COST

    def test_what_is_kept_from_them_counts_all(self) -> None:
        connections = PendingConnections(memory=2 * COST)
        pending = connections.admit("127.0.0.1", 0)
        pending.begin_verdict(10.0, 1000)
        assert connections.held == VERDICT_COST + 1000
        with pytest.raises(NoRoom):
            pending.begin_verdict(10.0, 2 * COST)
        pending.log_in()
        assert connections.held == 0

    def test_who_was_ended_waits_for_nothing(self) -> None:
        connections = PendingConnections(memory=2 * COST)
        pending = connections.admit(OTHER, 0)
        connections.evict(pending, NoRoom("why not"))
        pending.begin_verdict(10.0, 0)
        assert connections.held == 0


class TestBehindAProxy:
    """Connections of a proxy, which count for their clients once these are known."""

    PROXY = "10.0.0.5"

    def connections(self, **limits: int) -> PendingConnections:
        return PendingConnections(proxies=[ip_network("10.0.0.0/8")], **limits)

    def admit(self, connections: PendingConnections, client: str, now: float = 0) -> Pending:
        pending = connections.admit(self.PROXY, now)
        try:
            pending.identify(client, now)
        except ConnectionEnd:
            pending.done()
            raise
        return pending

    def test_the_limits_are_those_of_the_client(self) -> None:
        connections = self.connections(rate=5, max_pending=3)
        held = [self.admit(connections, ATTACKER) for _ in range(3)]
        with pytest.raises(TooManyPending, match=r"3 connections from 192\.0\.2\.0/24"):
            self.admit(connections, ATTACKER)
        # Those that come directly count together with them.
        with pytest.raises(TooManyPending):
            connections.admit("192.0.2.99", 0)
        for pending in held:
            pending.log_in()
        for _ in range(5):
            self.admit(connections, ATTACKER).done()
        with pytest.raises(TooManyConnections, match=r"from 192\.0\.2\.0/24"):
            self.admit(connections, ATTACKER)
        self.admit(connections, OTHER).log_in()
        assert connections.held == 0

    def test_a_client_that_says_it_is_loopback_has_limits(self) -> None:
        connections = self.connections(max_pending=1)
        self.admit(connections, "127.0.0.1")
        with pytest.raises(TooManyPending):
            self.admit(connections, "127.0.0.1")

    def test_a_proxy_before_a_proxy_has_none(self) -> None:
        connections = self.connections(rate=1, max_pending=1)
        for _ in range(9):
            assert self.admit(connections, "10.7.0.1").network is None

    def test_a_request_of_the_proxy_s_own_counts_for_nobody(self) -> None:
        connections = self.connections(max_pending=1)
        first = self.admit(connections, ATTACKER)
        first.identify(self.PROXY, 0)
        assert first.network is None
        self.admit(connections, ATTACKER).done()
        first.identify(ATTACKER, 0)
        with pytest.raises(TooManyPending):
            self.admit(connections, ATTACKER)
        first.done()
        assert connections.held == 0

    def test_it_is_told_once_for_each_network(self) -> None:
        """A request more of the same client is no connection more; one of another is."""
        connections = self.connections(rate=1)
        pending = connections.admit(self.PROXY, 0)
        for _ in range(9):
            pending.identify(ATTACKER, 0)
        pending.identify(OTHER, 0)
        pending.identify(ATTACKER, 0)
        with pytest.raises(TooManyConnections):
            pending.identify(OTHER, 0) or pending.identify(ATTACKER, 0)
        assert connections.held == COST

    def test_the_oldest_of_the_client_has_to_go(self) -> None:
        connections = self.connections(max_pending=1)
        first = self.admit(connections, ATTACKER)
        second = self.admit(connections, ATTACKER, EVICTABLE_AFTER)
        assert isinstance(first.end, TooManyPending)
        assert second.end is None
        with pytest.raises(TooManyPending):
            first.identify(OTHER, EVICTABLE_AFTER)

    def test_what_is_held_goes_along(self) -> None:
        connections = self.connections()
        pending = connections.admit(self.PROXY, 0)
        pending.hold(SPARE + 8 * COST)
        pending.identify(ATTACKER, 0)
        assert connections.held == 9 * COST
        # Its site holds the most, so it makes room.
        connections.admit(OTHER, 0, no_descriptor=True)
        assert isinstance(pending.end, NoRoom)

    def test_the_part_for_this_machine_is_not_for_a_proxy_s_clients(self) -> None:
        connections = PendingConnections()
        for n in range(len(fill(PendingConnections(), ATTACKER))):
            connections.admit(f"203.{n // 250}.{n % 250}.1", 0)
        proxied = connections.admit("127.0.0.1", 0)
        with pytest.raises(NoRoom):
            proxied.identify(OTHER, 0)
        proxied.done()
        proxied = connections.admit("127.0.0.1", EVICTABLE_AFTER)
        proxied.identify(OTHER, EVICTABLE_AFTER)
        with pytest.raises(NoRoom):
            proxied.hold(SPARE + 1)

    def test_a_connection_that_was_used_before_is_new(self) -> None:
        connections = self.connections()
        proxied = connections.admit(self.PROXY, 0)
        other = connections.admit(OTHER, 1)
        proxied.identify(ATTACKER, 2)
        connections.admit("203.0.113.7", 1 + EVICTABLE_AFTER, no_descriptor=True)
        assert proxied.end is None
        assert other.end is not None


class TestTable:
    @pytest.mark.slow
    def test_many_networks_are_not_remembered(self) -> None:
        connections = PendingConnections(rate=1)
        for n in range(3 * MAX_IDLE):
            connections.admit(f"2001:db8:{n:x}::1", 0).done()
        assert len(connections._networks) == len(connections._idle) == MAX_IDLE

    def test_idle_networks_are_forgotten(self) -> None:
        connections = PendingConnections(rate=1, max_pending=5)
        for n in range(100):
            connections.admit(f"203.0.{n}.1", 0).done()
        connections.admit(OTHER, BURST_SECONDS)
        assert list(connections._networks) == ["198.51.100.0/24"]
        assert not connections._idle

    @pytest.mark.slow
    def test_many_networks_do_not_set_one_free_that_goes_on(self) -> None:
        connections = PendingConnections(rate=1)
        for _ in range(2):
            connections.admit(ATTACKER, 0).done()
        for n in range(4 * MAX_IDLE):
            connections.admit(f"2001:db8:{n:x}::1", 0).done()
            if n % 1000 == 0:
                with pytest.raises(TooManyConnections):
                    connections.admit(ATTACKER, 0)


HOSTS = (
    st.integers(0, 5).map(lambda n: f"192.0.{n}.1")
    | st.integers(0, 5).map(lambda n: f"2001:db8:{n % 2}:{n}::1")
    | st.sampled_from(["127.0.0.1", "10.0.0.1"])
)


class Model(RuleBasedStateMachine):
    """Whatever comes, the sums are right and within their bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = PendingConnections(
            rate=20, max_pending=8, memory=20 * COST, proxies=[ip_network("10.0.0.0/8")]
        )
        self.admitted: list[Pending] = []
        self.now = 0.0

    @rule(host=HOSTS, full=st.booleans(), count=st.integers(1, 12))
    def connect(self, host: str, full: bool, count: int) -> None:
        for _ in range(count):
            before = len(self.connections)
            try:
                pending = self.connections.admit(host, self.now, no_descriptor=full)
            except (TooManyConnections, TooManyPending, NoRoom):
                # Of two whose room is wanted, maybe only one could be evicted.
                assert before - 1 <= len(self.connections) <= before
            else:
                assert len(self.connections) <= before + (not full)
                pending.abort = lambda: None
                self.admitted.append(pending)

    @rule(seconds=st.sampled_from([0.01, 0.5, EVICTABLE_AFTER, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), size=st.integers(0, 300_000))
    def hold(self, data: st.DataObject, size: int) -> None:
        pending = data.draw(st.sampled_from(self.admitted))
        try:
            pending.hold(size)
        except (NoRoom, TooManyPending):
            pending.done()
            self.admitted.remove(pending)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), seconds=st.sampled_from([0.5, 60.0]), size=st.integers(0, 300_000))
    def begin_verdict(self, data: st.DataObject, seconds: float, size: int) -> None:
        pending = data.draw(st.sampled_from(self.admitted))
        try:
            pending.begin_verdict(self.now + seconds, size)
        except NoRoom:
            pending.done()
            self.admitted.remove(pending)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), host=HOSTS)
    def identify(self, data: st.DataObject, host: str) -> None:
        pending = data.draw(st.sampled_from(self.admitted))
        try:
            pending.identify(host, self.now)
        except (TooManyConnections, TooManyPending, NoRoom):
            pending.done()
            self.admitted.remove(pending)
        else:
            network = pending.network
            # One that has logged in counts for none, and a proxy's for what it did before.
            assert network is None or host == "10.0.0.1" or network.name == network_of(host)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), login=st.booleans())
    def leave(self, data: st.DataObject, login: bool) -> None:
        pending = data.draw(st.sampled_from(self.admitted))
        self.admitted.remove(pending)
        if login and pending.end is None:
            pending.log_in()
        pending.done()

    @invariant()
    def sums_are_right(self) -> None:
        live = [pending for pending in self.admitted if pending.end is None]
        connections = self.connections
        assert len(connections) == len(live)
        assert connections.held == sum(pending.held for pending in live) <= 20 * COST
        networks, sites = connections._networks.values(), connections._sites._sites.values()
        assert {network.name for network in networks if network.pending} == {
            pending.network.name for pending in live if pending.network
        }
        for network in networks:
            assert len(network.pending) <= 8
            assert (network in connections._idle) is not bool(network.pending)
            assert bool(network.site) is bool(network.pending)
        assert sum(len(site.pending) for site in sites) == sum(
            len(network.pending) for network in networks
        )
        for site in sites:
            assert site.held == sum(pending.held for pending in site.pending) > 0
            sizes = [n for n, those in enumerate(connections._sites._by_size) if site in those]
            assert sizes == [site.held.bit_length()]
        assert sum(map(len, connections._sites._by_size)) == len(sites)


TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)


def test_it_is_nearly_full_at_three_quarters() -> None:
    connections = PendingConnections(memory=8 * COST)
    admitted = [connections.admit(f"192.0.2.{number}", 0.0) for number in range(5)]
    assert not connections.is_nearly_full
    admitted.append(connections.admit(OTHER, 0.0))
    assert connections.is_nearly_full
    admitted[0].done()
    assert not connections.is_nearly_full
