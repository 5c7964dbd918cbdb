"""What forbids a figure across a mesh, and reading a relay's own counters."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from bench import mesh

RESULT = {"all_sent": 1000, "all_received": 990}
FIRST = {"derp_packets_forwarded_out": 1000.0, "derp_packets_forwarded_in": 0.0}
SECOND = {"derp_packets_forwarded_out": 0.0, "derp_packets_forwarded_in": 990.0}
PAGE = b"""\
# TYPE derp_watchers gauge
derp_watchers 1
# TYPE derp_packets_dropped counter
derp_packets_dropped{reason="unknown_dest"} 7
derp_packets_forwarded_out 1000
derp_average_queue_duration_ms 0.25
"""


def test_what_went_across_once_has_no_faults():
    assert mesh.faults(RESULT, FIRST, SECOND) == []


@pytest.mark.parametrize(
    ("first", "second", "fault"),
    [
        # Less than has arrived: some of it did not go across.
        (989, 990, "the first relay has forwarded 989 packets out, of 1000 sent, 990 arrived"),
        (1000, 989, "the second relay has forwarded 989 packets in, of 1000 sent, 990 arrived"),
        # More than was sent: some went across twice.
        (1001, 990, "the first relay has forwarded 1001 packets out, of 1000 sent, 990 arrived"),
        (1000, 1001, "the second relay has forwarded 1001 packets in, of 1000 sent, 990 arrived"),
    ],
)
def test_packets_that_went_another_way_are_a_fault(first, second, fault):
    changed_first = FIRST | {"derp_packets_forwarded_out": first}
    changed_second = SECOND | {"derp_packets_forwarded_in": second}
    assert mesh.faults(RESULT, changed_first, changed_second) == [fault]


def test_packets_that_came_back_are_a_fault():
    first = FIRST | {"derp_packets_forwarded_in": 3}
    second = SECOND | {"derp_packets_forwarded_out": 3}
    assert mesh.faults(RESULT, first, second) == [
        "the first relay has forwarded 3 packets in, and should have none",
        "the second relay has forwarded 3 packets out, and should have none",
    ]


def test_counters_are_those_of_the_relays_page(tmp_path):
    with pages(tmp_path, "127.0.0.1") as address:
        relay = mesh.Running(0, address, "", tmp_path)
        trusted = ssl.create_default_context(cafile=tmp_path / "certs" / "127.0.0.1.crt")
        (counters,) = mesh.counters([relay], trusted)
    assert counters == {
        "derp_watchers": 1,
        "derp_packets_forwarded_out": 1000,
        "derp_average_queue_duration_ms": 0.25,
    }


@contextlib.contextmanager
def pages(work: Path, name: str) -> Iterator[str]:
    """Serve PAGE as a relay's /debug/varz over TLS, with the certificate of the benchmark."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/debug/varz"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            pass

    ca = trustme.CA()
    (work / "certs").mkdir()
    ca.cert_pem.write_to_path(work / "certs" / f"{name}.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    with HTTPServer((name, 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{name}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
