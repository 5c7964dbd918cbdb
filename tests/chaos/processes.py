"""Faults of processes: killed, stopped, their clock stepped; and mesh peers that flap."""

import contextlib
import os
import signal
import time

from tests.chaos import reading
from tests.chaos.stage import Stage

FLUSH = 20.0
"""Seconds of counts that a process takes with it: it hands them over every ten, busy or not."""
AFTER = 3.0


def lost(stage: Stage, since: float) -> None:
    """Note that a process was ended, or may have been: what it counted last is lost."""
    if stage.disk_since is not None:
        since = min(since, stage.disk_since)
    stage.kills.append((since - FLUSH, time.monotonic() + AFTER))


class KillWorker:
    """SIGKILL, for a worker."""

    name, go = "worker-killed", False

    def begin(self, stage: Stage) -> str:
        pid = stage.chance.choice(reading.workers(stage.relay))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.at = time.monotonic()
        return f"SIGKILL to process {pid}"

    def end(self, stage: Stage) -> None:
        lost(stage, self.at)


class StopWorker:
    """SIGSTOP, for a worker: the relay ends it when it has not answered for a while."""

    name, go = "worker-stopped", False

    def begin(self, stage: Stage) -> str:
        self.pid, self.at = stage.chance.choice(reading.workers(stage.relay)), time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        return f"SIGSTOP to process {self.pid}"

    def end(self, stage: Stage) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        lost(stage, self.at)


class KillRelay:
    """SIGKILL, for the relay's first process; something starts it again, as systemd would."""

    name, go = "relay-killed", True

    def begin(self, stage: Stage) -> str:
        stage.relay.kill()
        self.at = time.monotonic()
        return "SIGKILL to the relay"

    def end(self, stage: Stage) -> None:
        lost(stage, self.at)
        if stage.relay.process is None:
            stage.relay.start()


class StopRelay:
    """SIGSTOP, for the relay's first process, as a virtual machine that is paused."""

    name, go = "relay-stopped", True

    def begin(self, stage: Stage) -> str:
        self.process = stage.relay.process
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)
        return "SIGSTOP to the relay"

    def end(self, stage: Stage) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)


class StepClock:
    """The relay's wall clock jumps, and jumps back."""

    name, go = "clock-stepped", False

    def begin(self, stage: Stage) -> str:
        assert stage.clock
        hours = stage.chance.choice([-72, -1, 1, 25, 24 * 40])
        stage.clock.set(hours)
        return f"{hours:+} hours"

    def end(self, stage: Stage) -> None:
        assert stage.clock
        stage.clock.set(0)


class FlapPeer:
    """The mesh peer goes and comes a few times, or stands still."""

    name, go = "peer-flaps", True

    def begin(self, stage: Stage) -> str:
        self.stopped = stage.chance.random() < 0.4
        if self.stopped and stage.peer.process is not None:
            stage.peer.process.send_signal(signal.SIGSTOP)
            return "SIGSTOP to the peer"
        for _ in range(2):
            stage.peer.kill()
            stage.peer.start()
        stage.peer.kill()
        return "SIGKILL to the peer, three times"

    def end(self, stage: Stage) -> None:
        if self.stopped and stage.peer.process is not None:
            stage.peer.process.send_signal(signal.SIGCONT)
        elif stage.peer.process is None:
            stage.peer.start()
