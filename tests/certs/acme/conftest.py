"""A small ACME server on loopback, for what a real one seldom does.

It issues to whoever asks, and checks no signature and no answer to a challenge.
"""

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.acme import network
from certs.acme.authority import Authority, ExternalAccount

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake authority")])


@attrs.frozen
class Answer:
    status: int = 200
    body: Any = b""
    """Bytes, or what becomes JSON."""
    headers: dict[str, str | None] = attrs.Factory(dict)


@attrs.define
class FakeAuthority:
    """Answers as RFC 8555 has it, but for what it is told to say."""

    url: str
    once: dict[str, list[Answer]] = attrs.Factory(dict)
    always: dict[str, Answer] = attrs.Factory(dict)
    """What to say at a path, instead of the usual."""
    asked: list[str] = attrs.Factory(list)
    """The paths of all requests."""
    sent: dict[str, Any] = attrs.Factory(dict)
    """The last payload at each path."""
    heard: Callable[[str], object] | None = None
    """Called with the path of each request, before it is answered."""
    meta: dict[str, Any] = attrs.Factory(dict)
    kinds: tuple[str, ...] = ("http-01", "tls-alpn-01", "dns-01")
    registered: bool = False
    identifiers: list[dict[str, str]] = attrs.Factory(list)
    validated: bool = False
    chain: bytes = b""
    issued: str = "valid"
    """The status of an order once it is finalized."""
    expires: timedelta = timedelta(days=90)

    @property
    def authority(self) -> Authority:
        return Authority(f"{self.url}/dir")

    def with_external_account(self) -> Authority:
        return attrs.evolve(self.authority, external_account=ExternalAccount("kid", b"secret" * 6))

    def say(self, path: str, status: int, body: Any = b"", **headers: str) -> None:
        self.always[path] = self._answer(status, body, headers)

    def say_once(self, path: str, status: int, body: Any = b"", **headers: str) -> None:
        self.once.setdefault(path, []).append(self._answer(status, body, headers))

    def refuse(self, path: str, code: str, detail: Any = "no", status: int = 400, **h: str) -> None:
        self.say(path, status, self.problem(code, detail), **h)

    def problem(self, code: str, detail: Any = "no") -> dict[str, Any]:
        return {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}

    def _answer(self, status: int, body: Any, headers: dict[str, str]) -> Answer:
        return Answer(status, body, {name.replace("_", "-"): v for name, v in headers.items()})

    def answer(self, path: str, payload: Any) -> Answer:
        self.asked.append(path)
        self.sent[path] = payload
        if self.heard:
            self.heard(path)
        if self.once.get(path):
            return self.once[path].pop(0)
        if path in self.always:
            return self.always[path]
        name, _, rest = path.strip("/").partition("/")
        usual = getattr(self, f"_{name}", None)
        return usual(payload, rest) if usual else Answer(404, b"nothing here")

    def _dir(self, _payload: Any, _rest: str) -> Answer:
        paths = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order"}
        urls = {name: f"{self.url}/{path}" for name, path in paths.items()}
        return Answer(200, urls | {"renewalInfo": f"{self.url}/renewal", "meta": self.meta})

    def _nonce(self, _payload: Any, _rest: str) -> Answer:
        return Answer()

    def _account(self, payload: Any, _rest: str) -> Answer:
        if not self.registered and payload.get("onlyReturnExisting"):
            return Answer(400, self.problem("accountDoesNotExist"))
        status = 200 if self.registered else 201
        self.registered = True
        return Answer(status, {"status": "valid"}, {"Location": f"{self.url}/account/1"})

    def order(self, **more: Any) -> dict[str, Any]:
        status = "ready" if self.validated else "pending"
        body = {
            "identifiers": self.identifiers,
            "authorizations": [f"{self.url}/authz/{n}" for n in range(len(self.identifiers))],
            "finalize": f"{self.url}/finalize",
            "status": self.issued if self.chain else status,
        }
        return body | ({"certificate": f"{self.url}/cert"} if self.chain else {}) | more

    def _order(self, payload: Any, rest: str) -> Answer:
        if not rest:
            self.identifiers = payload["identifiers"]
            self.validated, self.chain = False, b""
        location = {"Location": f"{self.url}/order/1"}
        return Answer(200 if rest else 201, self.order(), location)

    def authorization(self, number: int = 0, **more: Any) -> dict[str, Any]:
        name = self.identifiers[number]["value"]
        wildcard = {"wildcard": True} if name.startswith("*.") else {}
        return (
            wildcard
            | {
                "identifier": self.identifiers[number] | {"value": name.removeprefix("*.")},
                "status": "valid" if self.validated else "pending",
                "challenges": [self.challenge(number, kind) for kind in self.kinds],
            }
            | more
        )

    def _authz(self, _payload: Any, number: str) -> Answer:
        return Answer(200, self.authorization(int(number)))

    def challenge(self, number: int, kind: str, **more: Any) -> dict[str, Any]:
        url = f"{self.url}/chall/{number}/{kind}"
        return {"type": kind, "url": url, "token": f"token-{number}-{'x' * 20}"} | more

    def _chall(self, _payload: Any, which: str) -> Answer:
        number, kind = which.split("/")
        self.validated = True
        up = {"Link": f'<{self.url}/authz/{number}>;rel="up"'}
        return Answer(200, self.challenge(int(number), kind), up)

    def _finalize(self, payload: Any, _rest: str) -> Answer:
        csr = x509.load_der_x509_csr(unpadded(payload["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.chain = self.certificate(csr.public_key(), names.value)
        return Answer(200, self.order())

    def certificate(self, key: Any, names: Any) -> bytes:
        now = datetime.now(UTC)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key())
        return (
            x509.CertificateBuilder(NAME, NAME, key, x509.random_serial_number())
            .not_valid_before(now - timedelta(days=900))
            .not_valid_after(now + self.expires)
            .add_extension(names, critical=True)
            .add_extension(authority_key, critical=False)
            .sign(KEY, SHA256())
            .public_bytes(Encoding.PEM)
        )

    def _cert(self, _payload: Any, _rest: str) -> Answer:
        return Answer(200, self.chain, {"Content-Type": "application/pem-certificate-chain"})


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    fake: FakeAuthority
    nonces = 0

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        payload = json.loads(unpadded(json.loads(body)["payload"]) or b"null") if body else None
        answer = self.fake.answer(self.path, payload)
        content = answer.body
        kind = "application/octet-stream"
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            kind = "application/json" if answer.status < 400 else "application/problem+json"
        Handler.nonces += 1
        headers = {
            "Date": format_datetime(datetime.now(UTC), usegmt=True),
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Replay-Nonce": f"nonce{Handler.nonces:011}",
        }
        self.send_response_only(answer.status)
        for name, value in (headers | answer.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAuthority]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.fake = FakeAuthority(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield handler.fake  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@attrs.define
class Clock:
    """Stands for the `time` module: time passes in sleep alone."""

    now: float = 1000.0
    slept: list[float] = attrs.Factory(list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(network, "time", clock)
    return clock


@pytest.fixture
def certdir(tmp_path: Path) -> Path:
    return tmp_path / "certs"
