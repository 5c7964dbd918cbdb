"""Faults of resources: descriptors, memory, disk and log pipe taken away and given back."""

import contextlib
import re
import resource
import subprocess
import time
from pathlib import Path

from bench.usage import tree
from tests.chaos import reading
from tests.chaos.processes import lost
from tests.chaos.stage import Stage

SPARE_DESCRIPTORS = 2
SPARE_MEMORY = 0
BALLAST = "ballast"


class Limit:
    """A soft limit of one process is lowered while it runs."""

    kind: int

    def begin(self, stage: Stage) -> str:
        assert stage.relay.process
        pids = [stage.relay.process.pid, *reading.workers(stage.relay)]
        self.pid, self.at = stage.chance.choice(pids), time.monotonic()
        with contextlib.suppress(OSError):
            self.before = resource.prlimit(self.pid, self.kind)
            limit = self.used(self.pid)
            resource.prlimit(self.pid, self.kind, (limit, self.before[1]))
            which = "its first process" if self.pid == pids[0] else "a worker"
            return f"{which} may have {limit:,}"
        return "the process had just ended"

    def end(self, stage: Stage) -> None:
        if stage.relay.process is None:
            return
        for pid in tree(stage.relay.process.pid):
            # A worker that was started meanwhile has inherited the limit.
            with contextlib.suppress(OSError):
                _, hard = resource.prlimit(pid, self.kind)
                resource.prlimit(pid, self.kind, (self.before[0], hard))

    def used(self, pid: int) -> int:
        """Return what the process has, and a little more."""
        raise NotImplementedError


class FewDescriptors(Limit):
    """No more files may be opened, but for two."""

    name, go = "descriptors", True
    kind = resource.RLIMIT_NOFILE

    def used(self, pid: int) -> int:
        highest = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
        return highest + 1 + SPARE_DESCRIPTORS


class LittleMemory(Limit):
    """No more memory may be mapped. The process may end by it, and be restarted."""

    name, go = "memory", True
    kind = resource.RLIMIT_AS

    def used(self, pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        size = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
        if size is None:
            raise ProcessLookupError
        return int(size[1]) * 1024 + SPARE_MEMORY

    def end(self, stage: Stage) -> None:
        super().end(stage)
        lost(stage, self.at)


class NoDisk:
    """The file system of the relay's files is full, or read-only."""

    name, go = "disk", False

    def begin(self, stage: Stage) -> str:
        assert stage.state
        stage.disk_since = time.monotonic()
        if stage.chance.random() < 0.4 and not self._remount(stage.state, "ro"):
            return "read-only"
        with contextlib.suppress(OSError), (stage.state / BALLAST).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return "full"

    def end(self, stage: Stage) -> None:
        assert stage.state
        self._remount(stage.state, "rw")
        (stage.state / BALLAST).unlink(missing_ok=True)

    def _remount(self, place: Path, mode: str) -> int:
        mount = ["mount", "-o", f"remount,{mode}", str(place)]
        return subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode


class BlockLog:
    """Whoever reads the relay's log reads no more."""

    name, go = "log-blocked", True

    def begin(self, stage: Stage) -> str:
        stage.relay.block_log()
        return "the pipe is not read"

    def end(self, stage: Stage) -> None:
        stage.relay.unblock_log()
