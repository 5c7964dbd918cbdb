"""What the processes of one test run share: the first makes it, the last removes it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def common_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this run have."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def one_at_a_time(mark: Path) -> Iterator[None]:
    """Keep the other processes that name this file waiting."""
    with mark.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(mark: Path, make: Callable[[], str], remove: Callable[[str], None]) -> Iterator[str]:
    """Yield the name of what `make` has made, here or in another process that names this file.

    Each process holds a lock while it uses it; whoever can have that alone is the last.
    """
    turn = mark.with_suffix(".turn")
    with mark.open("a+") as file:
        with one_at_a_time(turn):
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(0)
            if not (name := file.read()):
                name = make()
                file.write(name)
                file.flush()
        try:
            yield name
        finally:
            with one_at_a_time(turn), contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                remove(name)
