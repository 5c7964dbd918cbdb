"""An admission server that takes its time, and answers one question after the other.

It prints its URL, admits everybody until a line comes on standard input, and nobody from then on.
"""

import contextlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

ANSWER_SECONDS = 0.06


class Server(HTTPServer):
    """Not one of several threads: who asks meanwhile waits."""

    request_queue_size = 1024
    refuses = False


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
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


def main() -> None:
    with Server(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/verify", flush=True)
        for _ in sys.stdin:
            server.refuses = True


if __name__ == "__main__":
    main()
