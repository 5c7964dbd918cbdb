"""The kernel's figures of this process, from /proc and getrlimit.

The same figures as Prometheus' Go client shows on the Go derper's /debug/varz, and the boot time.
Procfs never waits for a device, so the event loop may call this.
"""

import os
import resource
from pathlib import Path
from typing import Final

from derp.metrics.gauges import UNLIMITED, Process

_PROC: Final = Path("/proc")


def read() -> Process | None:
    """Return the figures of this moment, or None where there is no /proc."""
    try:
        stat = _PROC.joinpath("self/stat").read_text(encoding="utf-8", errors="replace")
        booted = parse_boot_time(_PROC.joinpath("stat").read_text(encoding="ascii"))
        open_fds = count_fds()
    except OSError:
        return None
    user, system, started, virtual, resident = parse_stat(stat)
    ticks_a_second = os.sysconf("SC_CLK_TCK")
    received, transmitted = _read_octets()
    return Process(
        open_fds=open_fds,
        max_fds=max_fds(),
        cpu_seconds=(user + system) / ticks_a_second,
        resident_bytes=resident * os.sysconf("SC_PAGE_SIZE"),
        virtual_bytes=virtual,
        virtual_max_bytes=_limit(resource.RLIMIT_AS),
        started=booted + started / ticks_a_second,
        booted=booted,
        received_bytes=received,
        transmitted_bytes=transmitted,
    )


def resident_bytes() -> int:
    """Return how many bytes of memory this process uses; 0 where there is no /proc."""
    found = read()
    return 0 if found is None else found.resident_bytes


def count_fds() -> int:
    """Return how many file descriptors are open. Raises OSError where there is no /proc."""
    directory = "/proc/self/fd"
    # The size is the number, since Linux 6.2. A listing is slow, and needs a descriptor itself.
    return os.stat(directory).st_size or len(os.listdir(directory)) - 1  # noqa: PTH116, PTH208


def max_fds() -> int:
    """Return how many file descriptors may be open: the soft limit."""
    return _limit(resource.RLIMIT_NOFILE)


def parse_stat(text: str) -> tuple[int, int, int, int, int]:
    """Parse utime, stime, starttime (ticks), vsize (bytes) and rss (pages) in /proc/PID/stat.

    They are the fields 14, 15, 22, 23 and 24 of proc(5). Field 2, the program's name, is in
    parentheses and may contain spaces and parentheses.
    """
    fields = text[text.rindex(")") + 1 :].split()
    return int(fields[11]), int(fields[12]), int(fields[19]), int(fields[20]), int(fields[21])


def parse_boot_time(text: str) -> int:
    """Parse the boot time, in Unix seconds, from `btime` of /proc/stat; return 0 without one."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "btime":
            return int(value)
    return 0


def parse_octets(text: str) -> tuple[int, int] | None:
    """Parse InOctets and OutOctets in /proc/PID/net/netstat; return None without them.

    Each group is two lines, `IpExt:` with the names and `IpExt:` with the values.
    """
    groups = [line.split() for line in text.splitlines() if line.startswith("IpExt:")]
    if len(groups) != 2:
        return None
    values = dict(zip(*groups, strict=False))
    try:
        return int(values["InOctets"]), int(values["OutOctets"])
    except (KeyError, ValueError):
        return None


def _read_octets() -> tuple[int | None, int | None]:
    try:
        text = _PROC.joinpath("self/net/netstat").read_text(encoding="ascii")
    except OSError:
        return None, None  # some container runtimes have no such file
    return parse_octets(text) or (None, None)


def _limit(which: int) -> int:
    soft, _hard = resource.getrlimit(which)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft
