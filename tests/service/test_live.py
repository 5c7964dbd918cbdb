"""The live page: samples are shared, bounded, and taken only while somebody looks."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from derp.errors import RPCFailed, SteeringFailed
from derp.http.liveevents import NOTHING, RETRY, Viewer
from derp.http.livepage import PageOptions
from derp.http.liveview import MAX_ROWS, ClientRow, StatusRow, View, make_view
from derp.http.steer import Outcome
from derp.metrics.history import SPANS, Past
from derp.net.listenaddress import Address
from derp.service import live as service_live
from derp.service.backend import steer
from derp.service.clients import ClientStatus, Listing
from derp.service.live import (
    CLIENTS_PER_SECOND,
    KEPT,
    LONGEST_INTERVAL,
    MAX_STREAMS,
    SAMPLE_EVERY,
    STATUS_EVERY,
    Live,
    Sampler,
)
from derp.service.liverows import client_row, sort_keys
from derp.service.status import Pages
from derp.service.steering import Steered
from derp.wire.control import Command
from tests.relays import running
from tests.service.resources import running_relay
from tests.support.config import make_config
from tests.turns import Turns, counted_turns

Clock = trio.testing.MockClock
KEY = bytes(range(32))
CONFIG = make_config(dev=True, a=Address("127.0.0.1", 0), hostname="derp.example")
OPTIONS = PageOptions(hostname="derp.example", sort="total")


def status(name: str = "a", **changes: Any) -> ClientStatus:
    fields: dict[str, Any] = {
        "connection": f"0 {name} 1.5",
        "key": KEY,
        "label": name,
        "remote": "192.0.2.1:41641",
        "since": 1_800_000_000,
        "home": True,
        "mesh": False,
        "duplicate": False,
        "worker": 0,
        "sent": 0,
        "received": 0,
        "packets_sent": 0,
        "packets_received": 0,
        "packets_dropped": 0,
        "queued_bytes": 0,
        "queued_packets": 0,
        "limit": None,
        "used_day": None,
        "used_month": None,
        "quota": None,
        "quota_period": "",
    }
    return ClientStatus(**(fields | changes))


@attrs.define
class Asked:
    """A relay, and how often it was asked for what."""

    clients: Sequence[ClientStatus] = ()
    takes: float = 0.0
    """Seconds until it answers."""
    lost: bool = False
    silent: Sequence[int] = ()
    samples: int = 0
    looks: int = 0

    async def _clients(self) -> Listing:
        self.samples += 1
        await trio.sleep(self.takes)
        if self.lost:
            raise RPCFailed("gone")
        return Listing(self.clients, self.silent)

    async def _rows(self) -> Sequence[StatusRow]:
        self.looks += 1
        # As they come from another process.
        return cast("Sequence[StatusRow]", [["Looks", str(self.looks), "Relay"]])

    async def _past(self) -> Sequence[Past]:
        return [Past(0)] * len(SPANS)

    @property
    def pages(self) -> Pages:
        none = cast("Any", None)
        return Pages(
            rows=self._rows,
            varz=none,
            expvars=none,
            problems=none,
            traffic=none,
            clients=self._clients,
            past=self._past,
            steer=none,
        )


@asynccontextmanager
async def live(asked: Asked) -> AsyncIterator[Live]:
    async with running() as relay:
        yield Live(running_relay(CONFIG, relay.state), asked.pages)


def rates(view: Any) -> dict[str, tuple[str, str]]:
    return {row.cells[0][0]: (row.cells[3][0], row.cells[4][0]) for row in view.rows["name"]}


async def test_rates_are_those_between_two_samples(autojump_clock: Clock) -> None:
    asked = Asked([status("a", received=1000, sent=50)])
    sampler = Sampler(asked.pages)
    assert rates(await sampler.latest()) == {"a": ("-", "-")}
    await trio.sleep(2)
    asked.clients = [status("b"), status("a", received=1000 + 2500, sent=50)]
    assert rates(await sampler.latest()) == {"a": ("10.0 kbit/s", "0 bit/s"), "b": ("-", "-")}


async def test_those_who_look_at_once_share_a_sample(autojump_clock: Clock) -> None:
    asked = Asked(takes=0.5)
    sampler = Sampler(asked.pages)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(sampler.latest)
    assert asked.samples == 1
    await trio.sleep(SAMPLE_EVERY / 2)
    await sampler.latest()
    assert asked.samples == 1
    await sampler.wait_until_old()
    await sampler.latest()
    assert asked.samples == 2


async def test_one_who_goes_while_others_wait_leaves_them_a_sample(autojump_clock: Clock) -> None:
    asked = Asked(takes=0.5)
    sampler = Sampler(asked.pages)
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def look() -> None:
            with first:
                await sampler.latest()

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(sampler.latest)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
    assert asked.samples == 2


async def test_each_is_told_that_nobody_can_be_asked(autojump_clock: Clock) -> None:
    asked = Asked(takes=0.5, lost=True)
    sampler = Sampler(asked.pages)
    told = 0

    async def look() -> None:
        nonlocal told
        with pytest.raises(RPCFailed):
            await sampler.latest()
        told += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(look)
    assert told == 3
    asked.lost = False
    await sampler.latest()


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        (0, SAMPLE_EVERY),
        (CLIENTS_PER_SECOND, SAMPLE_EVERY),
        (4 * CLIENTS_PER_SECOND, 4.0),
        (100 * CLIENTS_PER_SECOND, LONGEST_INTERVAL),
    ],
)
async def test_many_clients_are_sampled_less_often(
    clients: int, seconds: float, autojump_clock: Clock
) -> None:
    sampler = Sampler(Asked([status()] * clients).pages)
    await sampler.latest()
    began = trio.current_time()
    await sampler.wait_until_old()
    assert trio.current_time() - began == pytest.approx(seconds)


async def test_the_rows_of_many_clients_are_made_in_several_turns(autojump_clock: Clock) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    asked = Asked([status(str(number)) for number in range(1000)])
    async with live(asked) as found, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await found.page(OPTIONS)
        sampled = turns
        await found.page(OPTIONS)
        nursery.cancel_scope.cancel()
    assert asked.samples == 1
    assert turns - sampled >= 5
    assert sampled - (turns - sampled) >= 10


async def test_rows_are_made_of_those_who_are_shown_only(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Turns()

    def noted(*args: Any, **more: Any) -> ClientRow:
        made.note()
        return client_row(*args, **more)

    monkeypatch.setattr(service_live, "client_row", noted)
    trio.lowlevel.add_instrument(made)
    # Those who have moved most are the first by name, too.
    asked = Asked([status(f"{number:04}", sent=9000 - number) for number in range(3000)])
    view = await Sampler(asked.pages).latest()
    trio.lowlevel.remove_instrument(made)
    assert made.events.total() <= 2 * MAX_ROWS
    assert made.most <= 100
    assert [row.cells[0][0] for row in view.rows["total"]] == [
        f"{number:04}" for number in range(MAX_ROWS)
    ]
    assert view.texts["clients"] == "3,000"


async def test_a_worker_that_does_not_answer_is_named(autojump_clock: Clock) -> None:
    asked = Asked([status("a")], silent=[1])
    view = await Sampler(asked.pages).latest()
    assert view.texts["shown"] == "worker 1 did not answer, and its clients are missing"


async def test_the_steps_of_a_sample_are_turns_of_their_own(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one process nothing that a sample awaits waits by itself."""
    asked = Asked([status(str(number)) for number in range(3)])
    with counted_turns() as turns:

        async def clients() -> Listing:
            turns.note()
            return Listing(asked.clients)

        async def rows() -> Sequence[StatusRow]:
            turns.note()
            return ()

        async def past() -> Sequence[Past]:
            turns.note()
            return [Past(0)] * len(SPANS)

        def viewed(*args: Any, **more: Any) -> View:
            turns.note()
            return make_view(*args, **more)

        def events(self: Viewer, view: View) -> Iterator[bytes]:
            turns.note()
            yield NOTHING

        monkeypatch.setattr(service_live, "make_view", viewed)
        monkeypatch.setattr(Viewer, "events", events)
        pages = attrs.evolve(asked.pages, clients=clients, rows=rows, past=past)
        async with running() as relay:
            found = Live(running_relay(CONFIG, relay.state), pages)
            async with aclosing(found.events("total")) as stream:
                assert await anext(stream) == RETRY
                assert await anext(stream) == NOTHING
        assert turns.events.total() == 5
        assert turns.most == 1


async def test_those_who_look_are_served_one_after_another(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted_turns() as turns:

        def events(self: Viewer, view: View) -> Iterator[bytes]:
            for _ in range(3):
                turns.note()
                yield NOTHING

        monkeypatch.setattr(Viewer, "events", events)
        async with live(Asked()) as found, trio.open_nursery() as nursery:

            async def look() -> None:
                async with aclosing(found.events("total")) as stream:
                    for _ in range(1 + 2 * 3):
                        await anext(stream)

            for _ in range(MAX_STREAMS):
                nursery.start_soon(look)
        assert turns.events.total() == MAX_STREAMS * 2 * 3
        assert turns.most == 1


async def test_the_status_is_asked_for_now_and_then(autojump_clock: Clock) -> None:
    asked = Asked()
    sampler = Sampler(asked.pages)
    for _ in range(11):
        view = await sampler.latest()
        await sampler.wait_until_old()
    assert asked.samples == 11
    assert asked.looks == 1 + 10 // STATUS_EVERY
    assert view.status["Relay"] == [("Looks", str(asked.looks))]


async def test_nothing_is_sampled_while_nobody_looks(autojump_clock: Clock) -> None:
    asked = Asked([status()])
    async with live(asked) as found, trio.open_nursery() as nursery:
        nursery.start_soon(found.keep)
        await trio.sleep(1000)
        assert (asked.samples, asked.looks) == (0, 0)
        async with aclosing(found.events("total")) as events:
            for _ in range(5):
                await anext(events)
        sampled = asked.samples
        await trio.sleep(1000)
        assert asked.samples == sampled
        nursery.cancel_scope.cancel()


async def test_an_old_sample_is_forgotten(autojump_clock: Clock) -> None:
    sampler = Sampler(Asked([status()]).pages)
    sampler.forget_old()
    await sampler.latest()
    await trio.sleep(KEPT)
    sampler.forget_old()
    assert sampler._moved
    await trio.sleep(SAMPLE_EVERY + 1)
    sampler.forget_old()
    assert not sampler._moved
    # Rates over so long a time would be none of now.
    assert rates(await sampler.latest()) == {"a": ("-", "-")}


async def test_the_traffic_is_noted_every_second(autojump_clock: Clock) -> None:
    async with running() as relay, trio.open_nursery() as nursery:
        relay.state.shared_clock = lambda: int(trio.current_time() * 1e9)
        whole = running_relay(CONFIG, relay.state)
        nursery.start_soon(Live(whole, Asked().pages).keep)
        await trio.sleep(0.5)
        for _ in range(5):
            await trio.sleep(1)
            relay.metrics.bytes_received += 1000
            relay.metrics.bytes_sent += 500
        minute = whole.history.past()[0]
        assert minute.rates == ((0, 0), *[(1000, 500)] * 4)
        nursery.cancel_scope.cancel()


async def test_the_page(autojump_clock: Clock) -> None:
    async with live(Asked([status("<b>")])) as found:
        page = (await found.page(OPTIONS)).decode()
    assert "<span>&lt;b&gt;</span>" in page
    assert "<li><b>Looks:</b> 1</li>" in page
    assert "<title>derp.example" in page


async def test_events(autojump_clock: Clock) -> None:
    asked = Asked([status("a"), status("b", received=1)])
    async with live(asked) as found, aclosing(found.events("total")) as events:
        assert await anext(events) == RETRY
        first = json.loads((await anext(events)).removeprefix(b"data: "))
        assert [cells[0][0] for _, _, cells in first["rows"]] == ["b", "a"]
        assert first["order"] == [row[0] for row in first["rows"]]
        began = trio.current_time()
        # The rates are known now.
        await anext(events)
        assert trio.current_time() - began == pytest.approx(SAMPLE_EVERY)
        assert await anext(events) == NOTHING


async def test_streams_are_bounded(autojump_clock: Clock) -> None:
    async with live(Asked()) as found:
        streams = [found.events("total") for _ in range(MAX_STREAMS)]
        for stream in streams:
            assert await anext(stream) == RETRY
        async with aclosing(found.events("total")) as one_more:
            assert [event async for event in one_more] == [
                b"event: busy\ndata: not live: 8 others look at this page\n\n"
            ]
        await streams[0].aclose()
        async with aclosing(found.events("total")) as instead:
            assert await anext(instead) == RETRY
        for stream in streams:
            await stream.aclose()


async def test_a_stream_ends_where_nobody_can_be_asked(autojump_clock: Clock) -> None:
    async with live(Asked(lost=True)) as found:
        stream = found.events("total")
        assert await anext(stream) == RETRY
        with pytest.raises(RPCFailed):
            await anext(stream)
        assert found._streams == 0


NOW = 1_800_000_000 + 7500


def row(**changes: Any) -> Any:
    return client_row(status(**changes), None, NOW, workers=False)


def test_a_row() -> None:
    full = status(
        "ada",
        received=1000,
        sent=2000,
        queued_bytes=3000,
        packets_dropped=4000,
        duplicate=True,
        worker=1,
    )
    found = client_row(full, (250.0, 125.0), NOW, workers=True)
    assert found.cells == (
        ("ada", "[AAECA] · home · twice"),
        ("192.0.2.1:41641", "worker 1"),
        ("2027-01-15 08:00", "2 h 5 min"),
        ("1.00 kbit/s", "1.00 kB"),
        ("2.00 kbit/s", "2.00 kB"),
        ("3.00 kB", "4,000 dropped"),
    )
    connection = full.connection
    assert sort_keys(full, (250.0, 125.0), 7) == (7, connection, "ada", 3000, 375, 1_800_000_000)
    assert found.key == f"nodekey:{KEY.hex()}"


def test_a_row_with_nothing_to_say() -> None:
    found = row(label="", home=False)
    assert found.cells[0] == ("[AAECA]", "")
    assert found.cells[1] == ("192.0.2.1:41641", "")
    assert found.cells[5] == ("-", "")


def test_what_else_there_is_to_say_of_a_client() -> None:
    assert row(label="", home=False, mesh=True).cells[0][1] == "mesh"
    quota = {"label": "", "home": False, "quota": 10}
    for used, said in ((9, ""), (10, "over quota")):
        assert row(**quota, quota_period="day", used_day=used, used_month=99).cells[0][1] == said
        assert row(**quota, quota_period="month", used_day=99, used_month=used).cells[0][1] == said
    assert row(**quota, quota_period="month").cells[0][1] == ""


def test_an_id_tells_connections_apart_and_nothing_else() -> None:
    one, other = row(connection="0 7f12 1.5"), row(connection="0 7f12 2.5")
    assert one.id != other.id
    assert one.id == row(connection="0 7f12 1.5", sent=5).id
    assert "7f12" not in one.id


async def test_orders_are_handed_on() -> None:
    asked: list[tuple[Command, str]] = []

    async def do(command: Command, by: str) -> Steered:
        asked.append((command, by))
        if command.action == "deny":
            raise SteeringFailed("no such key")
        return Steered("done", 1)

    assert await steer(do, Command("kick", KEY), "192.0.2.1") == Outcome(True, "done")
    assert await steer(do, Command("deny", KEY), "::1") == Outcome(False, "no such key")
    assert asked == [
        (Command("kick", KEY), "admin token, 192.0.2.1"),
        (Command("deny", KEY), "admin token, ::1"),
    ]
