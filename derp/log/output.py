"""The output of log lines: to stderr, through a bounded queue and one thread.

A write blocks while the reader of stderr doesn't read (a paused terminal, a stuck collector). So
the caller formats lines and queues them, and only the thread that writes them waits. Lines that
find the queue full, or can't be written, are counted; after the next one that is written, a line
gives their number. A broken stderr has no other effect.
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
"""Seconds for writing the last lines."""

_BATCH: Final = 200
"""Most lines in one write."""

_BATCH_SECONDS: Final = 0.02
"""Seconds to wait for more lines: waking the thread costs more than writing one."""


class Output:
    """The output that `start` returns; a context manager that stops it."""

    def __init__(self, handler: "_Handler", level_before: int) -> None:
        self._handler = handler
        self._level_before = level_before

    def stop(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Write the queued lines, for `timeout` seconds at most; return whether that sufficed."""
        logging.getLogger().removeHandler(self._handler)
        logging.getLogger("derper").setLevel(self._level_before)
        return self._handler.writer.stop(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    level: int = logging.INFO, *, fd: int | None = None, also: Mapping[str, object] | None = None
) -> Output:
    """Begin to write events to stderr (or `fd`, which stays the caller's), with the fields `also`.

    `level` is for the relay's events; libraries' are written from WARNING on. Colours need a
    terminal, and no NO_COLOR in the environment (https://no-color.org).
    """
    fd = _duplicate(_stderr() if fd is None else fd)
    formatter: logging.Formatter = Logfmt()
    if os.isatty(fd):
        no_colour = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        formatter = Terminal(colour=not no_colour)
    handler = _Handler(fd, formatter, also or {})
    events = logging.getLogger("derper")
    output = Output(handler, events.level)
    events.setLevel(level)
    logging.getLogger().addHandler(handler)
    # No format shows these attributes of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return output


class Writer:
    """A thread that writes lines to a descriptor, which it owns, and the queue of lines.

    `lost_line` returns the line that gives the number of lost lines.
    """

    def __init__(self, fd: int, lost_line: Callable[[int], str], limit: int = QUEUE_LIMIT) -> None:
        self._fd = fd
        self._lost_line = lost_line
        self._limit = limit
        # Unlike Queue.put, SimpleQueue.put is reentrant, as for a destructor that logs.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._refused = 0  # lines lost to a full queue; only `put` sets it
        self._reported = 0  # of these, reported; set by the thread, as the next two are
        self._unwritten = 0  # lines lost in a failed write, not reported
        self._torn = False  # whether the last write ended within a line
        self._stopping = threading.Event()
        # A daemon: a thread that waits for stderr must not keep the process alive.
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
        """Wait for lines, and take them; return False with the last ones."""
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
                except BlockingIOError:  # another process has set O_NONBLOCK on a shared stderr
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
    """Divide lines into portions that a pipe takes atomically (POSIX: PIPE_BUF).

    So lines of several processes are not mixed; a longer line is a portion of its own.
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
    """A handler that formats in the caller's thread, so that the writer's gets only text."""

    def __init__(self, fd: int, formatter: logging.Formatter, also: Mapping[str, object]) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._also = also
        self.writer = Writer(fd, self._lost_line)

    def emit(self, record: logging.LogRecord) -> None:
        if self._also:
            record.fields = {**getattr(record, "fields", {}), **self._also}
        self.writer.put(self.format(record))

    def _lost_line(self, count: int) -> str:
        event = {"name": "derper", "levelno": logging.WARNING, "levelname": "WARNING"}
        event |= {"msg": "log lines lost", "fields": {"count": count}}
        return self.format(logging.makeLogRecord(event))


def _stderr() -> int | None:
    try:
        return sys.stderr.fileno() if sys.stderr is not None else None
    except (OSError, ValueError):
        return None


def _duplicate(fd: int | None) -> int:
    """Return a duplicate of `fd`, or a descriptor of /dev/null if `fd` is closed.

    So if `fd` is closed later and a client's socket gets its number, no line goes there.
    """
    if fd is not None:
        with contextlib.suppress(OSError):
            return os.dup(fd)
    return os.open(os.devnull, os.O_WRONLY)
