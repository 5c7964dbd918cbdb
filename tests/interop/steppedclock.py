"""A wall clock of one program alone, which can be set while that runs."""

import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import attrs

from tests.interop.golang import HERE

HOUR = 60 * 60


class NoClockError(Exception):
    """A program's clock can't be set here; the message says why."""


@attrs.frozen
class SteppedClock:
    """`prefix` is put before the command whose clock it is."""

    prefix: list[str]
    file: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Compile what is preloaded, and try it. Raises NoClockError."""
        if not (compiler := shutil.which("cc")):
            raise NoClockError("no C compiler here to make a clock that can be set")
        library, file = folder / "clock.so", folder / "clock"
        source = HERE / "stepped_clock.c"
        command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"]
        subprocess.run(command, timeout=60, check=True)
        file.write_bytes(bytes(8))
        clock = cls(["env", f"LD_PRELOAD={library}", f"STEPPED_CLOCK={file}"], file)
        clock.set(-1000)
        tell = [*clock.prefix, sys.executable, "-c", "import time; print(time.time())"]
        told = subprocess.run(tell, capture_output=True, text=True, timeout=30, check=True).stdout
        if float(told) > time.time() - 999 * HOUR:
            raise NoClockError(
                "this Python's clock can't be set: it does not come from the C library"
            )
        clock.set(0)
        return clock

    def set(self, hours: int) -> None:
        """Set it to so many hours from now."""
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", hours * HOUR))
