"""Challenges are answered before the authority validates them, and until it has."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
import trio
import trio.testing

from certs.acme.answer import make_challenge
from certs.acme.challenge import HTTP01, Challenge
from certs.context import make_waiting_context
from certs.errors import UnusablePairError
from certs.pair import Pair
from certs.tasks.presenter import LocalPresenter
from certs.tasks.renewal import _present
from derp.net.address import Endpoint
from derp.net.tlsengine import TLSEngine
from derp.service.tls import ServerContexts
from derp.wire.clienthello import ClientHello
from tests.patience import PATIENCE

CHALLENGE = HTTP01("token", "body")


class Elsewhere:
    """Listeners that take their time."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.fails = False
        self.may_answer = trio.Event()
        self.is_asked = trio.Event()

    async def show(self, challenge: Challenge) -> None:
        self.is_asked.set()
        await self.may_answer.wait()
        if self.fails:
            raise UnusablePairError("too weak")
        self.log.append(challenge)

    async def hide(self, challenge: Challenge) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append("hidden")

    def order(self, ending: Exception | None = None) -> None:
        """Be the thread that orders."""
        with _present(self, [CHALLENGE]):  # type: ignore[arg-type]
            self.log.append("validated")
            if ending is not None:
                raise ending


@pytest.fixture
async def elsewhere() -> Elsewhere:
    return Elsewhere()


async def test_the_order_waits_until_the_answer_is_presented(
    elsewhere: Elsewhere, nursery: trio.Nursery
) -> None:
    ended = trio.Event()

    async def order() -> None:
        await trio.to_thread.run_sync(elsewhere.order, abandon_on_cancel=True)
        ended.set()

    nursery.start_soon(order)
    await elsewhere.is_asked.wait()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert elsewhere.log == []
    elsewhere.may_answer.set()
    await ended.wait()
    assert elsewhere.log == [CHALLENGE, "validated", "hidden"]


async def test_an_order_that_fails_leaves_no_answer_presented(elsewhere: Elsewhere) -> None:
    elsewhere.may_answer.set()
    with pytest.raises(ValueError, match="no"):
        await trio.to_thread.run_sync(partial(elsewhere.order, ValueError("no")))
    assert elsewhere.log == [CHALLENGE, "validated", "hidden"]


async def test_an_answer_that_can_t_be_presented_ends_the_order(elsewhere: Elsewhere) -> None:
    elsewhere.may_answer.set()
    elsewhere.fails = True
    with pytest.raises(UnusablePairError):
        await trio.to_thread.run_sync(elsewhere.order)
    assert elsewhere.log == ["hidden"]


async def test_an_order_that_is_cancelled_leaves_no_answer_presented(elsewhere: Elsewhere) -> None:
    async with trio.open_nursery() as nursery:
        order = partial(trio.to_thread.run_sync, elsewhere.order, abandon_on_cancel=True)
        nursery.start_soon(order)
        await elsewhere.is_asked.wait()
        nursery.cancel_scope.cancel()
    elsewhere.may_answer.set()
    with trio.fail_after(PATIENCE):
        while elsewhere.log[-1:] != ["hidden"]:  # noqa: ASYNC110 -- a thread has no event
            await trio.sleep(0.01)


async def test_the_contexts_of_this_process_answer(a_pair: Callable[[], Pair]) -> None:
    contexts = ServerContexts(TLSEngine(make_waiting_context("nothing yet")))
    here = LocalPresenter(contexts)
    http = make_challenge("http-01", "relay.example", "t", "t.thumb", datetime.now(UTC))
    tls = make_challenge("tls-alpn-01", "relay.example", "t", "t.thumb", datetime.now(UTC))
    await here.show(http)
    assert contexts.http_challenges == {"t": "t.thumb"}
    await here.show(tls)
    choose = contexts.engine.choose
    assert choose is not None
    hello = ClientHello("relay.example", (b"acme-tls/1",))
    assert choose(hello, Endpoint("192.0.2.7", 443)) is not contexts.engine.context
    await here.hide(http)
    await here.hide(tls)
    assert contexts.http_challenges == {}
    assert contexts.engine.choose is None
