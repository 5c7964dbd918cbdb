"""Up to 500 who want in at once, and an admission server that is slow, down or lying.

Each gets the verdict it should in time, two who are in lose nothing meanwhile, and neither the
relay's memory nor its connections to the admission server grow with the crowd.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import attrs
import pytest

from tests.interop.logins import ADMITTED, REFUSED, log_in, verdict, verdicts, wait_for_end
from tests.interop.oracle import ALLOW, REFUSE, Oracle, oracle, url_of
from tests.interop.oracle_process import Steps
from tests.interop.rawderp import SERVER, Key, Wire
from tests.interop.relay import Relay, running, write_key_file
from tests.interop.said import BY_URL, ELSEWHERE
from tests.support.derp import RECV_PACKET, SEND_PACKET, frame

CROWD = 500
IN_TIME = 15.0
"""Seconds: 5 for the admission server to answer in, and some for 500 logins on a busy machine."""
MAX_CONNECTIONS = 150
"""At the admission server."""
MAX_GROWTH = 50_000
"""Kilobytes: far less than 500 answers of 10 MB."""

IN, OUT = Key.named("one who is in"), Key.named("another who is in")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Oracle]:
    with oracle(tmp_path) as started:
        started.say(ELSEWHERE)
        started.admit(IN, OUT)
        yield started


def asking(command: Sequence[str], folder: Path, *flags: str) -> Relay:
    write_key_file(folder / "derper.key", SERVER.private)
    return Relay("relay", command, folder, tls=False, flags=flags)


@attrs.define
class Pair:
    """Two clients; what one sends the other gets, until told to stop."""

    one: Wire
    other: Wire
    rounds: int = 0
    over: bool = False

    def talk(self) -> None:
        """Raises AssertionError at the first packet that is missing or changed."""
        while not self.over:
            for wire, to in ((self.one, OUT), (self.other, IN)):
                payloads = [f"{self.rounds} {number}".encode() for number in range(20)]
                wire.send(b"".join(frame(SEND_PACKET, to.public + p) for p in payloads))
                sender, receiver = (IN, self.other) if to is OUT else (OUT, self.one)
                for payload in payloads:
                    assert receiver.take_frame() == (RECV_PACKET, sender.public + payload)
            self.rounds += 1


@contextmanager
def two_inside(relay: Relay) -> Iterator[Pair]:
    with closing(log_in(relay, IN)) as one, closing(log_in(relay, OUT)) as other:
        yield Pair(one, other)


def crowd(relay: Relay, keys: Sequence[Key], pair: Pair) -> list[str]:
    """What becomes of them, in time; `pair` talks all the while."""
    start = time.monotonic()
    with ThreadPoolExecutor(1) as aside:
        talking = aside.submit(pair.talk)
        try:
            results = verdicts(relay, keys, IN_TIME)
        finally:
            pair.over = True
        talking.result()
    assert time.monotonic() - start < IN_TIME
    assert pair.rounds > 20, "they had to wait"
    return results


CASES: dict[str, tuple[Steps, str]] = {
    "slowly yes": ([("wait", 0.3), *ALLOW], ADMITTED),
    "slowly no": ([("wait", 0.3), *REFUSE], REFUSED),
    "yes": (ALLOW, ADMITTED),
    "no": (REFUSE, REFUSED),
    **{
        said: (BY_URL[said], REFUSED)
        for said in ("500", "rubbish, then yes", "10 MB of spaces", "spaces without end")
    },
}


def test_lies(under_test: list[str], server: Oracle, is_go: bool, tmp_path: Path) -> None:
    wanted = [
        (Key.named(f"{said} {number}"), *case)
        for number in range(CROWD // 2 // len(CASES))
        for said, case in CASES.items()
    ]
    # Asked again, alone: seldom, as a server that does so is more often down for everybody.
    wanted[CROWD // 8] = (Key.named("closes"), BY_URL["closes"], ADMITTED)
    server.say({url_of(key): steps for key, steps, _ in wanted})
    relay = asking(under_test, tmp_path, "-verify-client-url", server.url)
    with running(relay), two_inside(relay) as pair:
        server.asked()
        before = relay.peak_memory()
        got = crowd(relay, [key for key, _, _ in wanted], pair)
        expected = [(key.name, verdict) for key, _, verdict in wanted]
        assert [(key.name, one) for (key, _, _), one in zip(wanted, got, strict=True)] == expected
        if not is_go:
            assert server.asked().most <= MAX_CONNECTIONS
            assert relay.peak_memory() - before < MAX_GROWTH


def test_one_worker(
    under_test: list[str],
    server: Oracle,
    is_go: bool,
    tmp_path: Path,
    differences: list[str],
) -> None:
    """The server says no to each of a crowd, one at a time: by being many nobody gets in.

    Somebody who was in lately gets in again meanwhile, and so does one who was not, from elsewhere.
    """
    flags = [] if is_go else ["-verify-remember", "0"]
    relay = asking(under_test, tmp_path, "-verify-client-url", server.url, *flags)
    strangers = [Key.named(f"stranger {number}") for number in range(300)]
    lately, new = Key.named("one who was in lately"), Key.named("one who is new")
    work = ("work", 0.06)
    server.admit(*strangers, steps=[work, *REFUSE])
    server.admit(lately, new, steps=[work, *ALLOW])
    with running(relay), two_inside(relay) as pair, ThreadPoolExecutor(1) as aside:
        assert verdict(relay, lately) == ADMITTED
        server.asked()
        crowding = aside.submit(crowd, relay, strangers, pair)
        questions = 0
        while questions < 3:
            # Those since it was asked last.
            questions += len(server.asked().questions)
            time.sleep(0.05)
        if not is_go:
            assert verdict(relay, lately) == ADMITTED
            assert verdict(relay, new, source="127.0.1.1") == ADMITTED
        got = crowding.result()
    if is_go:
        assert ADMITTED in got, "no longer different"
        return
    assert set(got) == {REFUSED}
    differences.append("verify: a crowd that a URL has no time for is refused")


def test_got_in_unasked(under_test: list[str], server: Oracle, is_go: bool, tmp_path: Path) -> None:
    """Who came in while the URL was down is out soon after it is back."""
    relay = asking(under_test, tmp_path, "-verify-client-url", server.url)
    strangers = [Key.named(f"stranger {number}") for number in range(20)]
    server.admit(*strangers, steps=BY_URL["closes"])
    with running(relay), two_inside(relay) as pair, ExitStack() as stack:
        wires = [stack.enter_context(closing(log_in(relay, key))) for key in strangers]
        server.admit(*strangers, steps=REFUSE)
        if not is_go:
            for wire in wires:
                wait_for_end(wire, IN_TIME)
        pair.over = True
        pair.talk()


def test_hangs(under_test: list[str], server: Oracle, is_go: bool, tmp_path: Path) -> None:
    """An unreachable URL fails open, also for those about whom it is asked late."""
    keys = [Key.named(f"unheard {number}") for number in range(CROWD)]
    server.admit(*keys, steps=BY_URL["nothing"])
    relay = asking(under_test, tmp_path, "-verify-client-url", server.url)
    with running(relay), two_inside(relay) as pair:
        assert set(crowd(relay, keys, pair)) == {ADMITTED}
        assert is_go or server.asked().most <= MAX_CONNECTIONS


def test_is_down(under_test: list[str], server: Oracle, tmp_path: Path) -> None:
    """Even those stay out whose questions did not reach it; and the two stay in."""
    keys = [Key.named(f"unheard {number}") for number in range(CROWD)]
    flags = ["-verify-client-url", server.url, "-verify-client-url-fail-open=false"]
    relay = asking(under_test, tmp_path, *flags)
    with running(relay), two_inside(relay) as pair:
        server.stop()
        assert set(crowd(relay, keys, pair)) == {REFUSED}
