"""An admission server: allows the keys of a file, one a line.

    python -m tests.chaos.admission PORT FILE

It serves until it is killed. As a process of its own it can be stopped like one.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    allowed: frozenset[str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"Allow": asked["NodePublic"] in self.allowed}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The relay's log tells enough."""


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def main(port: str, file: str) -> None:
    Handler.allowed = frozenset(Path(file).read_text().split())
    Server(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
