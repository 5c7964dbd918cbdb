"""How much memory there is: of the machine, and of the cgroups that this process is in."""

from pathlib import Path

import pytest

from derp.config.memorysize import MIN_SIZE, memory_size
from derp.relay.queuememory import UNLIMITED
from derp.service import memory as module
from derp.service.memory import memory, queue_limit

MIB, GIB = 1 << 20, 1 << 30
MEMINFO = "MemTotal:        1048576 kB\nMemFree:          123456 kB\n"


def make(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc", root / "cgroup"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, GIB),
        # A service of systemd, with and without limits, and one above it that is lower.
        ({"proc/self/cgroup": "0::/system.slice/derper.service\n"}, GIB),
        (
            {
                "proc/self/cgroup": "0::/system.slice/derper.service\n",
                "cgroup/system.slice/derper.service/memory.max": "max\n",
                "cgroup/system.slice/memory.max": "max\n",
            },
            GIB,
        ),
        (
            {
                "proc/self/cgroup": "0::/system.slice/derper.service\n",
                "cgroup/system.slice/derper.service/memory.max": f"{512 * MIB}\n",
                "cgroup/system.slice/memory.max": f"{300 * MIB}\n",
                "cgroup/other.slice/memory.max": "1\n",
            },
            300 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "0::/a.service\n",
                "cgroup/a.service/memory.max": f"{512 * MIB}\n",
                "cgroup/a.service/memory.high": f"{400 * MIB}\n",
            },
            400 * MIB,
        ),
        # A container, with a namespace of its own, or with the host's path to what it sees as /.
        ({"proc/self/cgroup": "0::/\n", "cgroup/memory.max": f"{128 * MIB}\n"}, 128 * MIB),
        ({"proc/self/cgroup": "0::/docker/ab12\n", "cgroup/memory.max": f"{MIB}\n"}, MIB),
        # cgroups v1, alone and beside v2; there a large number means that there is no limit.
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n5:cpu,cpuacct:/x\n4:memory:/box/1\n0::/\n",
                "cgroup/memory/box/1/memory.limit_in_bytes": f"{256 * MIB}\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cgroup/x/memory.max": "1\n",
            },
            256 * MIB,
        ),
        # More than there is, nonsense, a name with colons.
        ({"proc/self/cgroup": "0::/\n", "cgroup/memory.max": f"{64 * GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/a:b\n", "cgroup/a:b/memory.max": "many\n"}, GIB),
        ({"proc/self/cgroup": "0::/a:b\n", "cgroup/a:b/memory.max": f"{MIB}\n"}, MIB),
    ],
)
def test_the_least_of_all_limits_counts(tmp_path: Path, files: dict[str, str], found: int) -> None:
    assert memory(*make(tmp_path, {"proc/meminfo": MEMINFO, **files})) == found


@pytest.mark.parametrize("text", ["", "0::\n", "0::relative\n", "nonsense\n", "0::/../..\n"])
def test_what_makes_no_sense_is_no_limit(tmp_path: Path, text: str) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": text}
    assert memory(*make(tmp_path, files)) == GIB


def test_where_nothing_is_known_there_is_no_limit(tmp_path: Path) -> None:
    assert memory(*make(tmp_path, {})) == UNLIMITED
    assert memory(*make(tmp_path, {"proc/meminfo": "MemFree: 1 kB\n"})) == UNLIMITED


def test_this_machine_has_some() -> None:
    assert 16 * MIB < memory() < UNLIMITED


@pytest.mark.parametrize(
    ("text", "of_a_gib"),
    [
        ("auto", 64 * MIB),
        ("0", GIB),
        ("100%", GIB),
        ("25%", 256 * MIB),
        ("1MiB", MIB),
        ("1048576", MIB),
        ("2048KiB", 2 * MIB),
        ("1GiB", GIB),
        # There is no more.
        ("64GiB", GIB),
        ("999999999999999999GiB", GIB),
    ],
)
def test_sizes(text: str, of_a_gib: int) -> None:
    size = memory_size(text)
    assert size.of(GIB) == of_a_gib
    assert memory_size(size) is size


def test_auto_is_a_tenth_of_little_and_never_next_to_nothing() -> None:
    assert memory_size("auto").of(256 * MIB) == 256 * MIB // 10
    assert memory_size("auto").of(UNLIMITED) == 64 * MIB
    assert memory_size("auto").of(MIB) == memory_size("1%").of(MIB) == MIN_SIZE


def test_each_worker_has_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory", lambda: GIB)
    assert queue_limit(memory_size("auto"), 1) == 64 * MIB
    assert queue_limit(memory_size("auto"), 4) == 16 * MIB
    assert queue_limit(memory_size("16MiB"), 64) == MIN_SIZE
