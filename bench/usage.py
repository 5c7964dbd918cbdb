"""CPU time of process trees and of cores, from the kernel; the load client has the same in Go."""

import contextlib
import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2


def tree(root: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := stat_fields(path):
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def stat_fields(path: Path) -> list[str]:
    """Return the fields of /proc/PID/stat behind the command: state, ppid, ...; none if gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(root: int) -> float:
    """Return the CPU time that a process tree has used, all threads and ended children included.

    It is the sum that the kernel shows in /proc/PID/stat as utime and stime, but read from the
    process's CPU clock: that counts nanoseconds, not ticks. Children that have ended are counted
    from their parent's stat (cutime, cstime).
    """
    total = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
        total += sum(int(ticks) for ticks in stat_fields(Path(f"/proc/{pid}/stat"))[13:15]) / TICKS
    return total


def core_seconds(core: int) -> float:
    """Return for how long a core has been in use by whatever, or taken by a hypervisor."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            # user, nice, system, irq, softirq, steal
            return sum(int(fields[place]) for place in (0, 1, 2, 5, 6, 7)) / TICKS
    return 0.0


def pss(root: int) -> int:
    """Return the proportional set of a process tree, in bytes."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, *fields = line.split()
                if name == "Pss:":
                    total += int(fields[0]) << 10
    return total
