"""Starts pebble, Let's Encrypt's own ACME server for tests, and the name server it asks.

Pebble validates on one HTTP port and one TLS port, whoever asks; the relays of a test therefore
share these ports, each at an address of its own, like 127.0.0.11, and the name server says which
name is at which. Pebble keeps all in memory: once stopped, it knows no account and no certificate
any more, and has another root. Management is by its own HTTP interfaces, with deadlines.
"""

import contextlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import trustme

from tests.interop.netns import Namespace
from tests.interop.relay import die_with_parent, environment, free_port
from tests.interop.tailnet import background
from tests.support.waiting import until

TIMEOUT = 30
DAY = 24 * 60 * 60

PROFILES = {"shortlived": 6 * DAY} | {f"classic-{number}": 90 * DAY for number in range(20)}
"""Validity in seconds. Of an order that names no profile, pebble takes one at random."""


def ask(sock: socket.socket, path: str, body: Mapping[str, object] | None = None) -> bytes:
    """GET, or POST of a JSON object; raises AssertionError for any answer but 200."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    with contextlib.closing(connection):
        encoded = None if body is None else json.dumps(body)
        agent = {"User-Agent": "interop"}  # which pebble insists on
        connection.request("GET" if encoded is None else "POST", path, encoded, agent)
        response = connection.getresponse()
        content = response.read()
    assert response.status == 200, (path, response.status, content)
    return content


def dial(space: Namespace | None, port: int) -> socket.socket:
    """A connection to 127.0.0.1, there or here."""
    if space:
        return space.connect(("127.0.0.1", port))
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


@attrs.frozen
class NameServer:
    """pebble-challtestsrv: every name is at 127.0.0.1, unless it was told otherwise."""

    port: int
    management: int
    space: Namespace | None

    def point(self, name: str, address: str) -> None:
        """Let the name be at this address of IPv4, and no longer where it was."""
        for what, more in (("clear-a", {}), ("add-a", {"addresses": [address]})):
            with dial(self.space, self.management) as sock:
                ask(sock, f"/{what}", {"host": name, **more})


@contextlib.contextmanager
def name_server(
    binaries: Mapping[str, Path], folder: Path, space: Namespace | None = None
) -> Iterator[NameServer]:
    names = NameServer(free_port(), free_port(), space)
    flags = [
        f"-dnsserver=127.0.0.1:{names.port}",
        f"-management=127.0.0.1:{names.management}",
        "-defaultIPv4=127.0.0.1",
        "-defaultIPv6=",
    ]
    flags += [f"-{unused}=" for unused in ("http01", "https01", "doh", "tlsalpn01")]
    prefix = space.prefix if space else []
    command = [*prefix, str(binaries["pebble-challtestsrv"]), *flags]
    with background(command, folder / "names.log", environment()):

        def listens() -> bool:
            with contextlib.suppress(OSError):
                dial(space, names.port).close()
                dial(space, names.management).close()
                return True
            return False

        until("the name server listens", listens)
        yield names


@attrs.define
class Pebble:
    """One pebble, on ports that stay the same when it is started again."""

    folder: Path
    binaries: Mapping[str, Path]
    names: NameServer
    http_port: int = attrs.field(factory=free_port)
    tls_port: int = attrs.field(factory=free_port)
    """Where it validates."""
    profiles: Mapping[str, int] = PROFILES
    accounts: Mapping[str, str] = attrs.Factory(dict)
    """Key IDs and base64url keys for external account binding, which is required if there are."""
    whims: Mapping[str, str] = attrs.Factory(dict)
    """What it does to try its clients: environment variables, without PEBBLE_ before them."""
    space: Namespace | None = None
    port: int = attrs.field(factory=free_port)
    management: int = attrs.field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> str:
        """The URL for -acme-directory."""
        return f"https://127.0.0.1:{self.port}/dir"

    @property
    def bundle(self) -> Path:
        """What pebble's own HTTPS is verified with: -acme-ca-bundle."""
        return self.folder / "pebble-ca.pem"

    @property
    def log(self) -> str:
        return (self.folder / "pebble.log").read_text(errors="replace")

    def count(self, what: str) -> int:
        """How often it logged this."""
        return self.log.count(what)

    @property
    def orders(self) -> int:
        """How many orders were made."""
        return self.count("Added order ")

    @property
    def asked_when(self) -> int:
        """How often it was asked when to renew a certificate."""
        return self.count("GET /draft-ietf-acme-ari-03/renewalInfo/ ")

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self.process is None
        config = self._write_config()
        calm = {"VA_NOSLEEP": "1", "AUTHZREUSE": "0", "WFE_NONCEREJECT": "0"}
        settings = {f"PEBBLE_{name}": value for name, value in {**calm, **self.whims}.items()}
        prefix = self.space.prefix if self.space else []
        command = [*prefix, str(self.binaries["pebble"]), "-config", str(config)]
        with (self.folder / "pebble.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-dnsserver", f"127.0.0.1:{self.names.port}"],
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
            )
        until("pebble answers", self._answers)

    def stop(self) -> None:
        """As its machine's power would: it loses all that it knew."""
        if self.process:
            self.process.kill()
            self.process.wait(TIMEOUT)
            self.process = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let it answer nothing as long as the block runs: its ports accept, and that is all."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def root(self) -> str:
        """The PEM of the root of what it issues."""
        return self._ask("/roots/0").decode()

    def trust(self) -> ssl.SSLContext:
        """A client that trusts what this pebble issues, since it was last started."""
        return ssl.create_default_context(cadata=self.root())

    def suggest(self, leaf: bytes, *, hours: float) -> None:
        """Tell whoever asks to renew this certificate (DER) so many hours from now."""
        start = datetime.now(UTC) + timedelta(hours=hours)
        window = {"start": start.isoformat(), "end": (start + timedelta(minutes=1)).isoformat()}
        body = {
            "certificate": ssl.DER_cert_to_PEM_cert(leaf),
            "ariResponse": json.dumps({"suggestedWindow": window}),
        }
        self._ask("/set-renewal-info/", body)

    def _ask(self, path: str, body: Mapping[str, object] | None = None) -> bytes:
        return ask(self._dial(self.management), path, body)

    def _dial(self, port: int) -> ssl.SSLSocket:
        raw = dial(self.space, port)
        try:
            context = ssl.create_default_context(cafile=self.bundle)
            return context.wrap_socket(raw, server_hostname="127.0.0.1")
        except BaseException:
            raw.close()
            raise

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"pebble ended:\n{self.log}"
        with contextlib.suppress(OSError):
            self._dial(self.management).close()
            return bool(ask(self._dial(self.port), "/dir"))
        return False

    def _write_config(self) -> Path:
        certificate, key = self.folder / "pebble.crt", self.folder / "pebble.key"
        if not self.bundle.exists():
            ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
            leaf = ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
            leaf.cert_chain_pems[0].write_to_path(certificate)
            leaf.private_key_pem.write_to_path(key)
            ca.cert_pem.write_to_path(self.bundle)
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "externalAccountBindingRequired": bool(self.accounts),
            "externalAccountMACKeys": dict(self.accounts),
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "profiles": {
                name: {"description": name, "validityPeriod": seconds}
                for name, seconds in self.profiles.items()
            },
        }
        path = self.folder / "pebble.json"
        path.write_text(json.dumps({"pebble": settings}))
        return path


@contextlib.contextmanager
def pebble(binaries: Mapping[str, Path], folder: Path, **settings: object) -> Iterator[Pebble]:
    """A pebble with a name server of its own; `settings` are fields of Pebble."""
    space = settings.get("space")
    assert space is None or isinstance(space, Namespace)
    with name_server(binaries, folder, space) as names:
        authority = Pebble(folder, binaries, names, **settings)  # type: ignore[arg-type]
        try:
            authority.start()
            yield authority
        finally:
            authority.stop()
