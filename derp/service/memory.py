"""The memory that this process may use: the machine's, or the limit of its cgroup."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from derp.config.memorysize import MIN_SIZE, MemorySize
from derp.relay.queuememory import UNLIMITED

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Of cgroups v2 (above memory.high the kernel reclaims, and slows the process down) and v1."""


def queue_limit(size: MemorySize, processes: int) -> int:
    """Return how many bytes one of so many processes may queue."""
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
    Within a container the path may be one of the host's, and the folder that of the container.
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
