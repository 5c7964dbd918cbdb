"""One run: a relay and its clients, while rounds of faults come, and its books after each."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from tests.chaos import accounts, books, files, reading
from tests.chaos.crowd import Crowd
from tests.chaos.fault import Fault
from tests.chaos.schedule import Round, rounds
from tests.chaos.stage import Stage
from tests.chaos.table import Outcome
from tests.interop.issuing import hang_up, shake_with
from tests.interop.relay import RelayError

START_SECONDS = 180.0
BALANCE_SECONDS = 150.0
"""How long books may take to balance once all faults of a round are over."""
QUIET_SECONDS = 60.0
"""How long memory and queues may take to come down once there is no more traffic."""
STOP_SECONDS = 60.0
LOG_SECONDS = 10.0
LOOK_EVERY = 1.0
HANG_UP_EVERY = 5.0


@attrs.define
class Run:
    """One relay, through a schedule."""

    name: str
    stage: Stage
    crowd: Crowd
    faults: Mapping[str, Callable[[], Fault]]
    churn: float
    """Clients that leave in a second, while faults last; none while books are read."""
    outcome: Outcome
    began: float = attrs.field(factory=time.monotonic)
    descriptors: int = 0
    _hung_up: float = 0.0

    @property
    def second(self) -> float:
        return time.monotonic() - self.began

    def say(self, what: str) -> None:
        print(f"{self.name} {self.second:6.1f} s  {what}", flush=True)

    def fail(self, where: str, problems: Sequence[str]) -> None:
        """Note what does not balance."""
        for problem in problems:
            line = f"second {self.second:.0f}, {where}: {problem}"
            self.outcome.failures.append(line)
            self.say(f"FAILED: {line}")

    def play(self, seconds: float, seed: int) -> None:
        """Play rounds for so long; then have all leave, and read the last books."""
        self._wait_until_balanced("before the first fault", START_SECONDS)
        if self.outcome.failures:
            return
        self.outcome.memory_before = reading.memory(self.stage.relay)
        self.descriptors = reading.descriptors(self.stage.relay)
        self.began = time.monotonic()
        for each in rounds(list(self.faults), seed):
            if self.second > seconds:
                break
            self._play_round(each)
        self._read_last_books()
        self.outcome.seconds = self.second

    def _play_round(self, entries: Round) -> None:
        self.outcome.rounds += 1
        self.say(str(entries))
        self.crowd.order("churn", rate=self.churn)
        began = time.monotonic()
        running: dict[int, Fault] = {}
        postponed: list[Fault] = []
        names: dict[int, str] = {}
        for at, begins, entry in entries.events:
            self._wait_until(began + at, str(entries))
            key = id(entry)
            if begins:
                running[key] = fault = self.faults[entry.fault]()
                names[key] = entry.fault
                self.outcome.faults += 1
                self.say(f"  {entry.fault}: {fault.begin(self.stage)}")
            else:
                self._end(running.pop(key), postponed)
                self.say(f"  {entry.fault} is over")
        self._wait_until(time.monotonic(), str(entries))
        for fault in postponed:
            self._end(fault, None)
        if self.stage.disk_since is not None:
            self._repeat_orders()
        self._wait_until_balanced(str(entries), BALANCE_SECONDS)

    def _end(self, fault: Fault, postponed: list[Fault] | None) -> None:
        """End a fault; what can't be undone now comes after all others of the round."""
        try:
            fault.end(self.stage)
            self.crowd.order("belong", who=sorted(self.stage.belonging))
        except files.NotNowError as error:
            if postponed is None:
                self.fail(fault.name, [f"it could not be undone: {error}"])
            else:
                postponed.append(fault)

    def _repeat_orders(self) -> None:
        """Deny once more who is denied: what could not be written is lost with the process."""
        denied = [n for n in self.stage.of("url") if n in self.stage.away]
        with contextlib.suppress(OSError):
            files.steer(self.stage, "deny", denied)
        self.stage.disk_since = None

    def _wait_until(self, when: float, where: str) -> None:
        """Wait, and start the relay again if it ends by itself, as systemd would."""
        while True:
            relay = self.stage.relay
            if relay.process is not None and relay.process.poll() is not None:
                code = relay.process.wait()
                self.outcome.ended += 1
                self.say(f"  the relay has ended with {code}, and is started again")
                if self._must_not_end(where):
                    self.fail(where, [f"process: the relay ended with {code}"])
                relay.kill()
                self.stage.kills.append((time.monotonic() - 30.0, time.monotonic() + 3.0))
                try:
                    relay.start()
                except RelayError as error:
                    self.fail(where, [f"process: it does not start: {str(error).splitlines()[0]}"])
                    return
            left = when - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))

    def _must_not_end(self, where: str) -> bool:
        """Whether this is a fault of the relay's: without memory, it may end."""
        return "memory" not in where

    def _wait_until_balanced(self, where: str, seconds: float) -> None:
        """Wait for the books to balance; else note what does not."""
        self.crowd.order("churn", rate=0)
        start = time.monotonic()
        while problems := self._problems():
            if time.monotonic() > start + seconds:
                self.fail(where, problems)
                return
            self._wait_until(time.monotonic() + LOOK_EVERY, where)
        took = time.monotonic() - start
        self.outcome.slowest = max(self.outcome.slowest, took) if self.outcome.rounds else 0.0
        self.say(f"  balanced after {took:.1f} s")

    def _problems(self) -> list[str]:
        """Read the books; return what does not balance."""
        stage = self.stage
        here = [n for n in range(len(stage.members)) if not stage.home(n)]
        try:
            said = books.Reading(
                belonging=stage.belonging,
                inside=self.crowd.inside(),
                here=here,
                figures=reading.figures(stage.relay),
                consistent=reading.is_consistent(stage.relay),
                peers=1,
                workers=stage.workers,
            )
            problems = books.unbalanced(said)
            if not problems and stage.workers:
                keys = {n: stage.members[n].node_key for n in here}
                listed = reading.listed(stage.relay)
                problems = books.unbalanced(attrs.evolve(said, keys=keys, listed=listed))
            return [*problems, *self._wrong_certificate()]
        except OSError as error:
            return [f"pages: {error}"]

    def _wrong_certificate(self) -> list[str]:
        """Return a line if another certificate is served than has to be."""
        stage = self.stage
        if stage.authority is None:
            return []
        if stage.served:
            chain = shake_with(stage.relay).chain
            if chain and chain[0] == stage.served:
                return []
        with contextlib.suppress(OSError):
            if shake_with(stage.relay, stage.authority.trust()).chain:
                return []
        if time.monotonic() > self._hung_up + HANG_UP_EVERY:
            self._hung_up = time.monotonic()
            with contextlib.suppress(RelayError):
                hang_up(stage.relay)
        return ["certificate: neither the one that was put there nor one of the ACME server's"]

    def _read_last_books(self) -> None:
        where = "at the end"
        self.crowd.order("traffic", rate=0)
        self._wait_until_balanced(where, BALANCE_SECONDS)
        if lost := self.crowd.order("reach")["lost"]:
            self.fail(where, [f"packets: {len(lost)} pairs reach each other not, as {lost[0]}"])
        self._wait_until_quiet(where)
        said = self.crowd.order("say")
        outcome = self.outcome
        outcome.sent, outcome.received = said["sent"], said["received"]
        outcome.cut, outcome.out_seconds = said["cut"], said["out_seconds"]
        self.fail(where, [f"packets: {each}" for each in said["wrong"]])
        self.crowd.order("leave")
        self._stop(where)
        if self.stage.workers:
            self._read_accounts(where)

    def _wait_until_quiet(self, where: str) -> None:
        start = time.monotonic()
        outcome, relay = self.outcome, self.stage.relay
        while True:
            outcome.memory_after = reading.memory(relay)
            problems = books.outgrown(outcome.memory_before, outcome.memory_after)
            problems += books.leaked(self.descriptors, reading.descriptors(relay))
            if queued := reading.figures(relay).get("derper_queue_bytes", 0):
                problems.append(f"queues: {queued:.0f} bytes wait, and nobody sends")
            if not problems or time.monotonic() > start + QUIET_SECONDS:
                break
            time.sleep(LOOK_EVERY)
        self.fail(where, problems)

    def _stop(self, where: str) -> None:
        relay = self.stage.relay
        with contextlib.suppress(OSError):
            if left := reading.figures(relay)["derp_current_connections"] - 1:
                self.fail(where, [f"gauges: {left:.0f} connections, and all clients have left"])
        assert relay.process
        relay.process.terminate()
        try:
            code = relay.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as late:
            self.fail(where, [f"process: it does not stop within {late.timeout} s"])
            return
        if code:
            self.fail(where, [f"process: it stopped with {code}"])
        relay.settle_log(LOG_SECONDS)
        traces = reading.stack_traces(relay.log)
        self.fail(where, [f"log: {line}" for line in dict.fromkeys(traces)])

    def _read_accounts(self, where: str) -> None:
        stage, said = self.stage, self.crowd.order("counts")
        kept = reading.accounts(stage.relay.folder / "accounts")
        counted = {
            stage.members[n].node_key: accounts.Counted(
                said["sent"][n], said["counts"][n], said["cuts"][n]
            )
            for n in range(len(stage.members))
            if not stage.home(n)
        }
        found = accounts.balance(kept, counted, stage.kills, 1)
        self.outcome.accounts_sent, self.outcome.accounts_kept = found.sent, found.kept
        self.fail(where, found.wrong)
