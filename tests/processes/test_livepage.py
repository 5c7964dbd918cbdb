"""The live page of a relay that runs: what floods it, and who may go on looking."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.patience import PATIENCE
from tests.process import derper
from tests.processes.test_control import Client
from tests.support import derp

TOKEN = "correct-horse-battery"


def secret(file: Path, text: str) -> Path:
    """Put a secret into a file, whole."""
    new = file.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    return new.replace(file)


def post(token: str, body: bytes, length: int | None = None) -> bytes:
    head = (
        "POST /debug/steer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


def status(sock: socket.socket) -> int:
    """Return the status of an answer; what follows may be endless."""
    sock.settimeout(PATIENCE)
    with closing(http.client.HTTPResponse(sock)) as answer:
        answer.begin()
        return answer.status


def test_packets_move_while_it_is_flooded(tmp_path: Path) -> None:
    """By garbage, orders that are none, bodies without end, slow requests, and all streams."""
    token = secret(tmp_path / "token", TOKEN)
    order = json.dumps({"action": "kick", "key": f"nodekey:{'ab' * 32}"}).encode()
    floods = (
        (post(TOKEN, b"[" * 1000), 400),
        (post(TOKEN, order[:-2]), 400),
        (post(TOKEN, order.replace(b"kick", b"drop")), 400),
        (post(TOKEN, order), 409),
        (post("a-guess-of-somebody", order), 401),
        (post(TOKEN, b"x" * 1025), 413),
        (post(TOKEN, b"x", 1 << 40), 413),
        (get("/debug/?sort=" + "\xff" * 500), 400),
        (get("/debug/" + "x" * 100_000), 431),
        (b"GET /debug/ HTTP/1.1\r\nHost", 408),
        (b"\x16\x03\x01" * 200, 400),
        *[(get("/debug/events"), 200)] * 10,
        *[(get("/debug/"), 200)] * 10,
    )
    with (
        derper(tmp_path, "-admin-token-file", str(token), tls=False) as relay,
        ExitStack() as stack,
    ):
        port = relay.port("HTTP")
        one, other = (stack.enter_context(closing(Client(port))) for _ in range(2))
        flooding = []
        number = 0
        for data, expected in floods:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            sock.sendall(data)
            flooding.append((sock, expected, data))
            for _ in range(5):
                number += 1
                packet = number.to_bytes(4, "big")
                one._sock.sendall(derp.frame(derp.SEND_PACKET, other.node.key + packet))
                assert other._next() == (derp.RECV_PACKET, one.node.key + packet)
        for sock, expected, data in flooding:
            if expected != 408:  # it has half a minute
                assert status(sock) == expected, data[:200]
        assert not re.search("Traceback", "\n".join(relay.log))


@contextmanager
def looking(port: int, key: str) -> Iterator[http.client.HTTPResponse]:
    """Look through a proxy, with a key."""
    headers = {"Accept": "text/event-stream", "X-Forwarded-For": "203.0.113.7"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as asked:
        asked.request("GET", f"/debug/events?debugkey={key}", headers=headers)
        with asked.getresponse() as answer:
            yield answer


def test_who_had_the_key_before_sees_no_more(tmp_path: Path) -> None:
    file = secret(tmp_path / "key", "the-first-of-two-keys")
    with derper(tmp_path, "-debug-key-file", str(file), tls=False) as relay:
        port = relay.port("HTTP")
        with looking(port, "the-first-of-two-keys") as before:
            assert before.readline() == b"retry: 3000\n"
            secret(file, "the-second-of-two-keys")
            # It has its end, and before that not many events.
            assert len([*zip(range(100), before, strict=False)]) < 100
        with looking(port, "the-first-of-two-keys") as before:
            assert before.status == 403
        with looking(port, "the-second-of-two-keys") as after:
            assert after.readline() == b"retry: 3000\n"
