"""An admission server that takes its time, and answers one question after the other."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

ANSWER_SECONDS = 0.06
BACKLOG = 1024


class Server(HTTPServer):
    """Not one of several threads: who asks meanwhile waits."""

    request_queue_size = BACKLOG
    refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/verify"

    def refuse(self) -> None:
        """Admit nobody any more."""
        self.refuses = True


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:  # noqa: N802 -- the base class's name
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            time.sleep(ANSWER_SECONDS)
        body = json.dumps({"Allow": not self.server.refuses}).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def refusing() -> Iterator[Server]:
    """Serve, and at first admit everybody."""
    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
