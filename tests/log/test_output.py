import errno
import logging
import os
import re
import subprocess
import sys

import pytest

from derp import log
from derp.log.output import QUEUE_LIMIT, Writer

LOST = re.compile(r'msg="log lines lost" count=(\d+)')


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as reader, os.fdopen(writing, "wb", 0) as writer:
        yield reader, writer


def lost_line(count):
    return f"lost {count}"


def told_lost(text):
    return sum(int(count) for count in re.findall(r"^lost (\d+)\n", text, re.MULTILINE))


def test_elsewhere_than_at_a_terminal_events_are_logfmt(pipe):
    reader, writer = pipe
    with log.start(fd=writer.fileno()):
        log.get("client").info("joined", client="[AbCdE]")
        log.get("client").debug("not shown")
        logging.getLogger("library").warning("shown")
        logging.getLogger("library").info("not shown")
    writer.close()
    lines = reader.read().decode().splitlines()
    assert re.fullmatch(r"time=\S+Z level=info msg=joined client=\[AbCdE\]", lines[0])
    assert re.fullmatch(r"time=\S+Z level=warning msg=shown logger=library", lines[1])
    assert len(lines) == 2


def test_the_level_can_be_chosen(pipe):
    reader, writer = pipe
    with log.start(logging.DEBUG, fd=writer.fileno()):
        log.get("client").debug("shown")
    writer.close()
    assert "level=debug msg=shown" in reader.read().decode()


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_at_a_terminal_lines_are_for_eyes(monkeypatch, environment, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = os.openpty()
    with log.start(fd=slave):
        log.get("client").warning("left", client="[AbCdE]")
    text = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert ("\x1b[" in text) == coloured
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING left client=\[AbCdE\]\r\n", plain)


async def test_a_stderr_that_nobody_reads_holds_up_nobody_and_losses_are_counted(pipe):
    reader, writer = pipe
    total = 3 * QUEUE_LIMIT
    output = log.start(fd=writer.fileno())
    logger = log.get("client")
    for number in range(total):
        logger.info("x" * 500, number=number)
    assert output.stop(timeout=0.01) is False
    writer.close()
    text = reader.read().decode()
    lost = sum(int(count) for count in LOST.findall(text))
    numbers = [int(number) for number in re.findall(r"number=(\d+)", text)]
    assert QUEUE_LIMIT <= len(numbers) < total
    assert len(numbers) + lost == total
    assert numbers == sorted(numbers)


def test_a_reader_that_comes_back_hears_of_the_loss_and_of_what_comes_after(pipe):
    reader, writer = pipe
    lines = Writer(os.dup(writer.fileno()), lost_line, limit=10)
    for _ in range(1000):
        lines.put("x" * 1000)
    text = ""
    while text.count("x\n") + told_lost(text) < 1000:
        text += reader.read(1 << 20).decode()
    assert told_lost(text) > 500
    lines.put("back")
    assert lines.stop(timeout=10)
    writer.close()
    text += reader.read().decode()
    assert text.endswith("\nback\n")
    assert text.count("x\n") + told_lost(text) == 1000


def test_a_broken_pipe_ends_nothing(pipe):
    reader, writer = pipe
    reader.close()
    with log.start(fd=writer.fileno()) as output:
        for _ in range(3 * QUEUE_LIMIT):
            log.get("client").info("joined")
        assert output.stop() is True


def test_nothing_is_torn_or_lost_where_the_descriptor_does_not_block(pipe):
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    lines = Writer(os.dup(writer.fileno()), lost_line)
    for number in range(1000):
        lines.put(f"{number:0500}")
    writer.close()
    lines.stop(timeout=0)
    assert reader.read().decode().splitlines() == [f"{number:0500}" for number in range(1000)]


def test_a_disk_that_was_full_for_a_while(monkeypatch, pipe):
    reader, writer = pipe
    fd = os.dup(writer.fileno())
    lines = Writer(fd, lost_line)
    write, plan = os.write, ["half", "full", "full"]

    def write_as_planned(to, data):
        if to != fd or not plan:
            return write(to, data)
        if plan.pop(0) == "half":
            return write(to, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write_as_planned)
    assert not lines._write(["one of several words"])
    assert not lines._write(["two"])
    lines.put("three")
    assert lines.stop(timeout=10)
    writer.close()
    assert reader.read().decode().splitlines() == ["one", "three", "lost 2"]


def test_stopping_twice_does_no_harm(pipe):
    _, writer = pipe
    output = log.start(fd=writer.fileno())
    assert output.stop()
    assert output.stop()


def test_after_the_stop_the_level_is_what_it_was(pipe):
    _, writer = pipe
    events = logging.getLogger("derper")
    before = events.level
    with log.start(logging.CRITICAL, fd=writer.fileno()):
        assert events.level == logging.CRITICAL
    assert events.level == before


def test_after_the_stop_nothing_is_written(pipe):
    reader, writer = pipe
    log.start(fd=writer.fileno()).stop()
    log.get("client").info("joined")
    writer.close()
    assert reader.read().decode() == ""


def test_without_a_stderr_there_is_no_log(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with log.start() as output:
        log.get("client").info("joined")
        assert output.stop()


def run(code, **options):
    return subprocess.Popen([sys.executable, "-c", code], **options)


@pytest.mark.slow
def test_a_process_logs_to_its_stderr():
    code = "from derp import log\nwith log.start(): log.get('cli').info('hi', user='ü')"
    process = run(code, stderr=subprocess.PIPE, env=os.environ | {"LC_ALL": "C"})
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.fullmatch(rb"time=\S+Z level=info msg=hi user=\xc3\xbc\n", stderr)


@pytest.mark.slow
def test_a_process_ends_in_good_order_though_nobody_reads_its_stderr(pipe):
    _, writer = pipe
    code = (
        "from derp import log\n"
        "output = log.start()\n"
        "for _ in range(5000): log.get('cli').info('x' * 1000)\n"
        "print(output.stop(timeout=0.01))"
    )
    process = run(code, stdout=subprocess.PIPE, stderr=writer)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stdout == b"False\n"


@pytest.mark.slow
def test_a_process_that_was_started_without_a_stderr():
    code = (
        "import os\nos.close(2)\n"
        "from derp import log\n"
        "with log.start() as output:\n"
        "    log.get('cli').info('joined')\n"
        "    print(output.stop())"
    )
    process = run(code, stdout=subprocess.PIPE)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stdout == b"True\n"
