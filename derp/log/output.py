"""The output of log lines: to stderr, through a bounded queue and one thread.

The reader of stderr may stop reading (a paused terminal, a stuck collector), and a write would then
wait for it. So lines are formatted by the caller and put into a queue; a thread writes them, and
alone waits. A line that finds the queue full, or that can't be written, is counted, and after the
next one that is written a line says how many were lost. A broken stderr loses lines and nothing
else.
"""

import contextlib
import logging
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from derp.log.formats import Logfmt, Terminal

QUEUE_LIMIT: Final = 2000
"""Most lines in the queue."""

STOP_TIMEOUT: Final = 2.0
"""Seconds for writing the last lines at the end."""

_BATCH: Final = 200
"""Most lines in one write."""

_BATCH_SECONDS: Final = 0.02
"""Seconds to wait for more lines: to wake the thread for each costs more than to write it."""


class Output:
    """The output that `start` made; a context manager that stops it at the end."""

    def __init__(self, handler: "_Handler") -> None:
        self._handler = handler

    def stop(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Write the queued lines, for `timeout` seconds at most; return whether that sufficed."""
        logging.getLogger().removeHandler(self._handler)
        return self._handler.writer.stop(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    level: int = logging.INFO, *, fd: int | None = None, also: Mapping[str, object] | None = None
) -> Output:
    """Begin to write events to stderr (or `fd`, which stays the caller's).

    `also`: fields of each line, for one of several processes that write to the same stderr. `level`
    is for our own events; libraries' are written from WARNING on. Colours need a terminal, and an
    environment without NO_COLOR (https://no-color.org).
    """
    fd = _duplicate(_stderr() if fd is None else fd)
    formatter: logging.Formatter = Logfmt()
    if os.isatty(fd):
        no_colour = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        formatter = Terminal(colour=not no_colour)
    handler = _Handler(fd, formatter, also or {})
    logging.getLogger("derper").setLevel(level)
    logging.getLogger().addHandler(handler)
    # What no format shows need not be looked up for each line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return Output(handler)


class Writer:
    """A thread that writes lines to a descriptor, which it owns, and the queue before it.

    `lost` makes the line that says how many lines were lost.
    """

    def __init__(self, fd: int, lost: Callable[[int], str], limit: int = QUEUE_LIMIT) -> None:
        self._fd = fd
        self._lost_line = lost
        self._limit = limit
        # Unlike Queue, SimpleQueue may be put into from a destructor in the midst of a put.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._refused = 0  # counted by `put`, ...
        self._reported = 0  # ... and how many of these the thread has reported,
        self._unwritten = 0  # counted by the thread alone
        self._torn = False
        self._stopping = threading.Event()
        # A daemon, since a thread that waits for stderr must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue `line`; never waits. One thread at a time may call it."""
        if self._queue.qsize() >= self._limit:
            self._refused += 1
        else:
            self._queue.put(line)

    def stop(self, timeout: float) -> bool:
        """Write the queued lines and end the thread; return whether `timeout` seconds sufficed."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        more = True
        while more:
            lines, more = self._take()
            for portion in _portions(lines):
                if self._write(portion):
                    self._report_losses()
        os.close(self._fd)

    def _take(self) -> tuple[list[str], bool]:
        """Wait for a line, and take those behind it; False with the last ones."""
        lines = []
        with contextlib.suppress(queue.Empty):
            line = self._queue.get()
            if self._queue.qsize() < _BATCH:
                self._stopping.wait(_BATCH_SECONDS)
            while line is not None:
                lines.append(line)
                if len(lines) == _BATCH:
                    return lines, True
                line = self._queue.get_nowait()
            return lines, False
        return lines, True

    def _report_losses(self) -> None:
        refused, unwritten = self._refused, self._unwritten
        lost = refused - self._reported + unwritten
        if lost and self._write([self._lost_line(lost)]):
            self._reported = refused
            self._unwritten = 0

    def _write(self, lines: list[str]) -> bool:
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # somebody who shares the descriptor made it so
                    self._wait_writable()
                else:
                    self._torn = True
        except OSError:
            self._unwritten += len(lines)
            return False
        self._torn = False
        return True

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()


def _portions(lines: list[str]) -> Iterator[list[str]]:
    """Divide lines into pieces that a pipe takes whole (POSIX: PIPE_BUF).

    So lines of several processes are not mixed; a longer line is a piece of its own.
    """
    portion: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode("utf-8", "backslashreplace")) + 1
        if portion and size + length > select.PIPE_BUF:
            yield portion
            portion, size = [], 0
        portion.append(line)
        size += length
    if portion:
        yield portion


class _Handler(logging.Handler):
    """Formats in the caller's thread, so that the writing thread gets nothing but text."""

    def __init__(self, fd: int, formatter: logging.Formatter, also: Mapping[str, object]) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._also = also
        self.writer = Writer(fd, self._lost)

    def emit(self, record: logging.LogRecord) -> None:
        if self._also:
            record.fields = {**getattr(record, "fields", {}), **self._also}
        self.writer.put(self.format(record))

    def _lost(self, count: int) -> str:
        event = {"name": "derper", "levelno": logging.WARNING, "levelname": "WARNING"}
        event |= {"msg": "log lines lost", "fields": {"count": count}}
        return self.format(logging.makeLogRecord(event))


def _stderr() -> int | None:
    try:
        return sys.stderr.fileno() if sys.stderr is not None else None
    except (OSError, ValueError):
        return None


def _duplicate(fd: int | None) -> int:
    """Return a duplicate of `fd`, or a descriptor of /dev/null if that is closed.

    Were `fd` closed later, its number might become that of a client's socket; the duplicate's may
    not.
    """
    if fd is not None:
        with contextlib.suppress(OSError):
            return os.dup(fd)
    return os.open(os.devnull, os.O_WRONLY)
