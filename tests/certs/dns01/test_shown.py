"""The wait for name servers, with servers that answer from a list and a clock that jumps."""

import logging
import threading
from collections.abc import Sequence

import attrs
import pytest

from certs.dns01.budget import Budget
from certs.dns01.lookup import Answer, Server
from certs.dns01.record import Place, PlacedRecord, Record
from certs.dns01.shown import BLIND_WAIT, wait_until_shown
from certs.errors import Failure, IssueError

SHOWN, NOT_SHOWN, SILENT = Answer.SHOWN, Answer.NOT_SHOWN, Answer.SILENT
ONE, TWO = Server("ns1.example", ("192.0.2.1",)), Server("ns2.example", ("192.0.2.2",))
RECORD = PlacedRecord("p", Record("a.example", "v"), Place("_acme-challenge.a.example", "example"))
OTHER = attrs.evolve(RECORD, record=Record("a.example", "w"))


class Jumping(threading.Event):
    """An event whose wait takes no time, but the clock's."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()


class World:
    def __init__(self, **answers: Sequence[Answer]) -> None:
        """Answers by the server's name; the last one stays."""
        self.answers = {name: list(given) for name, given in answers.items()}
        self.stop = Jumping()
        self.asked: list[tuple[str, str]] = []

    def wait(self, *records: PlacedRecord, seconds: float = 100.0) -> float:
        """Return the seconds that it took."""
        began = self.stop.now
        budget = Budget(began + seconds, self.stop, lambda: self.stop.now)
        wait_until_shown(records or (RECORD,), lambda _zone: (ONE, TWO), self.ask, budget)
        return self.stop.now - began

    def ask(self, server: Server, record: PlacedRecord) -> Answer:
        name = server.name.partition(".")[0]
        self.asked.append((name, record.record.value))
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def test_all_show_it_at_once() -> None:
    world = World(ns1=[SHOWN], ns2=[SHOWN])
    assert world.wait(RECORD, OTHER) == 0.0
    assert len(world.asked) == 4


def test_the_last_one_is_waited_for() -> None:
    world = World(ns1=[SHOWN], ns2=[NOT_SHOWN] * 4 + [SHOWN])
    assert world.wait() > 3.0
    # Who has shown it is not asked again.
    assert world.asked.count(("ns1", "v")) == 1


def test_one_never_does() -> None:
    world = World(ns1=[SHOWN], ns2=[NOT_SHOWN])
    with pytest.raises(IssueError) as caught:
        world.wait(seconds=50.0)
    assert caught.value.failure is Failure.VALIDATION
    assert str(caught.value) == (
        "ns2.example (192.0.2.2) did not show the TXT record of _acme-challenge.a.example within "
        "50 s; see at the provider whether it is in the zone example, "
        "and give -acme-dns-wait more if it is only slow"
    )
    assert world.stop.now == 150.0


def test_a_silent_one_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World(ns1=[NOT_SHOWN, SHOWN], ns2=[SILENT])
    with caplog.at_level(logging.WARNING):
        assert world.wait() < 10.0
    (record,) = caplog.records
    assert record.fields == {"servers": "ns2.example (192.0.2.2)"}  # type: ignore[attr-defined]


def test_one_that_is_silent_now_and_then_is_not_left_out() -> None:
    world = World(ns1=[SHOWN], ns2=[SILENT, SILENT, NOT_SHOWN, SILENT, SILENT, SHOWN])
    world.wait()
    assert world.asked.count(("ns2", "v")) == 6


def test_where_all_are_silent_it_waits_for_some_time() -> None:
    world = World(ns1=[SILENT], ns2=[SILENT])
    assert BLIND_WAIT < world.wait() < BLIND_WAIT + 10.0
    assert World(ns1=[SILENT], ns2=[SILENT]).wait(seconds=20.0) == 20.0


def test_it_is_given_up() -> None:
    world = World(ns1=[NOT_SHOWN], ns2=[SHOWN])
    world.stop.set()
    with pytest.raises(IssueError, match="given up"):
        world.wait()
