"""What monitors are shown: made once a second at most, with the bytes of every client."""

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from certs.tasks.status import Status
from derp.errors import RPCFailed
from derp.http.monitoring import Health
from derp.metrics.keybytes import OTHER_KEYS
from derp.net.listenaddress import Address
from derp.service import keytraffic
from derp.service.keytraffic import KeyTraffic
from derp.service.monitorpages import MIN_AGE, Paced, standalone_backend
from derp.session.client import Client
from derp.wire.keys import node_public_text
from tests.peers import Peer
from tests.relays import Relay, running
from tests.service.resources import resources, running_relay
from tests.support.config import make_config


@attrs.define
class Question:
    """Is asked, and answers with how often it was."""

    seconds: float = 0.0
    asked: int = 0
    fault: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        answer = self.asked
        await trio.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault
        return answer


class TestPaced:
    async def test_an_answer_is_given_again_for_a_second(self, autojump_clock: MockClock) -> None:
        paced = Paced(Question())
        assert [await paced() for _ in range(3)] == [1, 1, 1]
        await trio.sleep(MIN_AGE)
        assert [await paced() for _ in range(2)] == [2, 2]

    async def test_who_asks_meanwhile_waits_for_the_same_answer(
        self, autojump_clock: MockClock
    ) -> None:
        paced, answers = Paced(question := Question(seconds=5)), []

        async def ask() -> None:
            answers.append(await paced())

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert (answers, question.asked) == ([1] * 50, 1)

    async def test_one_that_gives_up_leaves_the_question_to_the_next(
        self, autojump_clock: MockClock
    ) -> None:
        paced, answers = Paced(Question(seconds=5)), []

        async def ask(patience: float) -> None:
            with trio.move_on_after(patience):
                answers.append(await paced())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, 60)
        assert answers == [2]
        assert trio.current_time() == 6

    async def test_a_failure_is_no_answer(self, autojump_clock: MockClock) -> None:
        question = Question(fault=RPCFailed("gone"))
        paced = Paced(question)
        for _ in range(2):
            with pytest.raises(RPCFailed):
                await paced()
        question.fault = None
        assert await paced() == 3


class Kernel:
    """What the kernel would say of connections that a test makes in memory."""

    def __init__(self) -> None:
        self.said: dict[bytes, tuple[int, int]] = {}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()

    def note_bytes(client: Client, *, is_over: bool = False) -> None:
        client.wire_bytes = made.said.get(client.key, (0, 0))

    monkeypatch.setattr(Client, "note_bytes", note_bytes)
    return made


@pytest.fixture
async def relay(autojump_clock: MockClock) -> AsyncIterator[Relay]:
    async with running() as relay:
        yield relay


async def leave(relay: Relay, peer: Peer) -> None:
    await peer.end.aclose()
    await relay.end_of(peer)


class TestKeyTraffic:
    async def test_what_a_client_did_stays_when_it_has_left(
        self, autojump_clock: MockClock, relay: Relay, kernel: Kernel
    ) -> None:
        traffic = KeyTraffic(relay.state, 5)
        client = await relay.login()
        kernel.said[client.key] = (10, 1)
        assert await traffic.totals() == {client.key: (10, 1), OTHER_KEYS: (0, 0)}
        kernel.said[client.key] = (15, 7)
        await leave(relay, client)
        kernel.said[client.key] = (3, 3)
        again = await relay.login(key=client.private)
        assert (await traffic.totals())[client.key] == (18, 10)
        await leave(relay, again)
        assert traffic._bytes.meters() == []

    async def test_one_that_leaves_while_all_are_asked_is_counted_once(
        self,
        autojump_clock: MockClock,
        relay: Relay,
        kernel: Kernel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        traffic = KeyTraffic(relay.state, 5)
        client = await relay.login()
        kernel.said[client.key] = (10, 1)

        async def checkpoint() -> None:
            await leave(relay, client)

        others = SimpleNamespace(checkpoint=checkpoint)
        there = SimpleNamespace(lowlevel=others, current_time=trio.current_time)
        with monkeypatch.context() as patched:
            patched.setattr(keytraffic, "trio", there)
            assert (await traffic.totals())[client.key] == (10, 1)
        assert traffic._bytes.meters() == []


CONFIG = {"dev": True, "a": Address("127.0.0.1", 0)}


async def page(relay: Relay, **flags: Any) -> str:
    found = running_relay(make_config(**CONFIG, **flags), relay.state)
    return await standalone_backend(found).metrics()


async def test_keys_are_shown_as_far_as_they_are_asked_for(
    autojump_clock: MockClock, relay: Relay, kernel: Kernel
) -> None:
    assert "derper_key_" not in await page(relay)
    assert relay.state.on_leave is None
    one, other = await relay.login(), await relay.login()
    kernel.said = {one.key: (10, 1), other.key: (20, 2)}
    text = await page(relay, metrics_per_key=1)
    name = node_public_text(one.key)
    assert f'\nderper_key_sent_bytes_total{{key="{name}"}} 10\n' in text
    assert f'\nderper_key_received_bytes_total{{key="{name}"}} 1\n' in text
    assert '\nderper_key_sent_bytes_total{key="other"} 20\n' in text
    assert node_public_text(other.key) not in text


async def health(relay: Relay, *statuses: Status) -> Health:
    certificates = SimpleNamespace(statuses=list(statuses))
    parts = resources(certificates=cast("Any", certificates))
    found = running_relay(make_config(**CONFIG), relay.state, resources=parts)
    return await standalone_backend(found).health()


def status(expires: float | None) -> Status:
    pair = None
    if expires is not None:
        pair = SimpleNamespace(not_after=Moment(time.time() + expires), not_before=Moment(0))
    return Status(cast("Any", SimpleNamespace(names=("derp.example",))), cast("Any", pair))


@attrs.frozen
class Moment:
    """A date, as far as it is looked at."""

    unix_time: float

    def timestamp(self) -> float:
        return self.unix_time

    def __sub__(self, other: "Moment") -> Any:
        return SimpleNamespace(total_seconds=lambda: self.unix_time - other.unix_time)


async def test_the_health_of_a_relay(autojump_clock: MockClock, relay: Relay) -> None:
    found = await health(relay, status(None), status(86400.0))
    assert (found.draining, found.processes, found.accepting) == (False, 1, True)
    assert [each.name for each in found.certificates] == ["derp.example"] * 2
    none, day = (each.days_left for each in found.certificates)
    assert none is None
    assert day == pytest.approx(1.0, abs=0.01)
    relay.state.stopping = True
    found = await health(relay)
    assert (found.draining, found.accepting) == (True, False)
    relay.state.stopping = False
