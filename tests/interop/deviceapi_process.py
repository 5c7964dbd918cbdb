"""Tailscale's API, or headscale's, over HTTP, as tests.support.deviceapis has it.

    python -m tests.interop.deviceapi_process tailscale|headscale [ADDRESS [PORT]]

It prints its port and serves until it is killed.

    POST /say       a JSON object sets fields of it; {"refuse": [STATUS, BODY, HEADERS]} refuses all
                    that follows, {"refuse": null} no more
    GET /asked      the requests since it was last asked for
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.deviceapis import Answer, Headscale, Tailscale, as_json


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Tailscale | Headscale

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/say":
            for name, value in json.loads(body).items():
                is_refusal = name == "refuse"
                setattr(
                    self.api,
                    "refusal" if is_refusal else name,
                    _answer(*value) if is_refusal and value else value,
                )
            answer = as_json({})
        elif self.path == "/asked":
            answer = as_json(self.api.requests)
            self.api.requests = []
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = self.api.answer(self.command, self.path, headers, body, time.time())
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_POST = do_GET  # noqa: N815 -- as above

    def log_message(self, *_: object) -> None:
        """The relay's log tells enough."""


def _answer(status: int, body: str, headers: dict[str, str]) -> Answer:
    return Answer(status, body.encode(), headers)


def main(kind: str, address: str = "127.0.0.1", port: str = "0") -> None:
    Handler.api = Tailscale() if kind == "tailscale" else Headscale()
    server = ThreadingHTTPServer((address, int(port)), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
