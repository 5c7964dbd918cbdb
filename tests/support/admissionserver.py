"""An admission server that allows everybody, and notes about whom it is asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def admitting() -> Iterator[tuple[str, list[str]]]:
    """Run one; yield its URL, and the addresses (Source) that it was asked about."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(json.loads(body)["Source"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"Allow": true}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/verify", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
