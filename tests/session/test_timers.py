import socket
from types import SimpleNamespace
from typing import Any

import pytest

from derp.metrics import Metrics
from derp.net.address import Endpoint
from derp.net.tcp import TCPTransport
from derp.session import timers

HERE, THERE = Endpoint("127.0.0.1", 443), Endpoint("127.0.0.1", 50000)


def sampled(transport: Any) -> dict[str, int]:
    metrics = Metrics()
    client: Any = SimpleNamespace(transport=transport, metrics=metrics)
    timers.sample_round_trip(client)
    return metrics.tcp_rtt


def test_the_round_trip_time_is_the_kernels() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with client, ours:
            ours.send(b"x")
            client.recv(1)
            # On loopback it is some microseconds.
            assert sampled(TCPTransport(ours, THERE, HERE)) == {"10ms": 1}


def test_the_kernels_microseconds_are_found_in_its_struct() -> None:
    class Slow(TCPTransport):
        def tcp_info(self) -> bytes:
            return bytes(68) + (120_000).to_bytes(4, "little") + bytes(100)

    with socket.socket() as sock:
        assert sampled(Slow(sock, THERE, HERE)) == {"150ms": 1}


@pytest.mark.parametrize("answer", [b"", bytes(71), OSError("no")])
def test_an_error_is_counted(answer: bytes | OSError) -> None:
    class Broken(TCPTransport):
        def tcp_info(self) -> bytes:
            if isinstance(answer, OSError):
                raise answer
            return answer

    with socket.socket() as sock:
        assert sampled(Broken(sock, THERE, HERE)) == {"error": 1}
