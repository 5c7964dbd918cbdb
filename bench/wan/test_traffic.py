"""What sends and receives, over loopback: two processes each, as in a case."""

import contextlib
import json
import socket
import subprocess
import sys
import threading

import pytest

from bench.servers import free_port
from bench.wan import traffic
from bench.wan.measure import TRAFFIC

HOST = "127.0.0.1"
PATIENCE = 30


@contextlib.contextmanager
def program(*arguments):
    command = [sys.executable, str(TRAFFIC), *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def told(process):
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return json.loads(output) if output else None


def test_streams_arrive_and_end_at_once():
    port = free_port(socket.SOCK_STREAM)
    with program("sink", HOST, port) as sink:
        with program("push", HOST, port, 2) as push:
            threading.Event().wait(0.3)
            assert told(push) is None
        samples = told(sink)
    assert samples[0][1] == 0
    assert samples[-1][1] > 0
    assert samples == sorted(samples)


def test_pings_come_back():
    port = free_port(socket.SOCK_DGRAM)
    with program("echo", HOST, port) as echo, program("ping", HOST, port, 0.001) as ping:
        threading.Event().wait(0.3)
        sent = told(ping)
        told(echo)
    assert len(sent) > 2
    assert all(took is not None and took < PATIENCE for _, took in sent)


def test_pings_to_nobody_are_lost():
    with program("ping", HOST, free_port(socket.SOCK_DGRAM), 0.05) as ping:
        threading.Event().wait(0.2)
        sent = told(ping)
    assert sent
    assert all(took is None for _, took in sent)


def proxied(answers):
    """A connection to a proxy that gives these answers, and what it is asked."""
    asked = bytearray()
    listener = socket.create_server((HOST, 0))

    def serve():
        with listener, listener.accept()[0] as sock:
            for count, answer in answers:
                asked.extend(traffic.take(sock, count))
                sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return listener.getsockname(), asked, thread


GRANTED = (bytes([5, 0]), bytes([5, 0, 0, 1, 127, 0, 0, 1, 4, 210]))


def test_a_stream_through_a_proxy():
    proxy, asked, thread = proxied([(3, GRANTED[0]), (10, GRANTED[1])])
    traffic.connected(("100.64.0.2", 9000), proxy).close()
    thread.join()
    assert asked == bytes([5, 1, 0, 5, 1, 0, 1, 100, 64, 0, 2, 0x23, 0x28])


def test_packets_through_a_proxy():
    proxy, asked, thread = proxied([(3, GRANTED[0]), (10, GRANTED[1])])
    control, relay, before = traffic.associated(("100.64.0.2", 9000), proxy)
    control.close()
    thread.join()
    assert asked[3:] == bytes([5, 3, 0, 1, 0, 0, 0, 0, 0, 0])
    assert relay == (HOST, 1234)
    assert before == bytes([0, 0, 0, 1, 100, 64, 0, 2, 0x23, 0x28])


def test_a_proxy_that_refuses():
    proxy, _, thread = proxied([(3, GRANTED[0]), (10, bytes([5, 5, 0, 1]))])
    with pytest.raises(OSError, match="the proxy says 5"):
        traffic.connected(("100.64.0.2", 9000), proxy)
    thread.join()
