"""The memory that this process may use: the machine's, or the limit of its cgroup."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from derp.config.memorysize import MIN_SIZE, MemorySize
from derp.relay.queuememory import UNLIMITED

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Files of cgroups v2 (above memory.high the kernel slows the process down) and of v1."""


def queue_limit(size: MemorySize, processes: int) -> int:
    """Return how many bytes each of `processes` processes may queue."""
    return max(size.of(memory()) // processes, MIN_SIZE)


def memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory for this process; UNLIMITED where that is not known.

    The event loop may call this: procfs and cgroups never wait for a device.
    """
    found = [_total(_read(proc / "meminfo"))]
    for folder in _folders(_read(proc / "self/cgroup"), cgroups):
        found += [int(text) for name in _LIMITS if (text := _read(folder / name)).isdecimal()]
    return min(found)


def _total(meminfo: str) -> int:
    """Parse MemTotal, which is in KiB; see proc(5)."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.removesuffix("kB")) << 10
    return UNLIMITED


def _folders(text: str, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroups, and of all above them: their limits count, too.

    Each line of `text` is `number:controllers:path`, with no controllers for v2; see cgroups(7).
    Within a container, `path` may be the host's; then only `cgroups` itself is the container's.
    """
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":/")
        own = PurePosixPath(path)
        if "memory" in controllers.split(","):
            yield from (cgroups / "memory" / folder for folder in (own, *own.parents))
        elif rest.startswith(":/"):
            yield from (cgroups / folder for folder in (own, *own.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
