"""The real nginx, HAProxy, Caddy and frp before a relay, with what deploy/proxies/ has for them.

Each proxy serves on a port of its own, for as long as a `running` block. Of a shipped file only the
places are changed, and in conf/ is what stands around it on a host.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template

import attrs
import pytest

from tests.field.built import FOLDERS, HOW, PROGRAMS
from tests.interop.relay import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    Relay,
    TestCA,
    die_with_parent,
    free_port,
)

CONF = Path(__file__).resolve().parent / "conf"
REPO = Path(__file__).resolve().parents[2]
SHIPPED = REPO / "deploy/proxies"
HAPROXY_OF_DEBIAN = Path("/etc/haproxy/haproxy.cfg")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

AFAR = "127.0.77.7"
"""The address of clients: another than that from which proxies connect to the relay."""
IDLE = "10m"
"""The time for which a connection may be silent, as it is shipped."""

PLACES = {
    "/etc/letsencrypt/live/derp.example.com/fullchain.pem": "$folder/localhost.crt",
    "/etc/letsencrypt/live/derp.example.com/privkey.pem": "$folder/localhost.key",
    "/etc/haproxy/derp.example.com.pem": "$folder/both.pem",
    "    listen [::]:443": "    # listen [::]:443",
    "listen 443": "listen 127.0.0.1:$port",
    "bind :::443 v4v6": "bind 127.0.0.1:$port",
    "        :443 {": "        127.0.0.1:$port {",
    "    layer4 {": "    admin off\n    layer4 {",
    'serverAddr = "203.0.113.7"': 'serverAddr = "127.0.0.1"',
    "serverPort = 7000": "serverPort = $beside",
    "remotePort = 443": "remotePort = $port",
    "localPort = 8443": "localPort = $relay",
    "127.0.0.1:8080": "127.0.0.1:$relay",
    "127.0.0.1:8443": "127.0.0.1:$relay",
    # A web server that is not there.
    "127.0.0.1:8444": "127.0.0.1:9",
    "derp.example.com {": "https://localhost:$port, https://127.0.0.1:$port {\n"
    "    bind 127.0.0.1\n    tls $folder/localhost.crt $folder/localhost.key",
    "derp.example.com": "localhost",
}


@attrs.frozen
class Kind:
    """A proxy, and what it is told."""

    name: str
    program: str
    shipped: str
    command: tuple[str, ...]
    """`{around}` and `{shipped}` are the configurations' paths."""
    around: str
    beside: tuple[str, ...] = ()
    """A program that runs with it, and what that is told."""
    passes_tls: bool = False
    """Whether TLS is between client and relay, and the PROXY protocol before it."""
    usual_idle: float | None = None
    """Seconds for which a connection may be silent by the program's documentation; None for any."""
    needs: Path | None = None

    def absent(self) -> str:
        """Why it can't be run here; empty if it can."""
        if not find(self.program):
            if self.program in PROGRAMS:
                return f"{self.program} is not built; run: {HOW}"
            return f"{self.program} is not installed"
        if self.needs and not self.needs.exists():
            return f"{self.program} lacks {self.needs}"
        return ""

    @property
    def flag(self) -> str:
        """The flag of the relay that lists it."""
        return "-proxy-protocol-from" if self.passes_tls else "-trusted-proxies"


NGINX = ("-e", "stderr", "-c", "{around}")
HAPROXY = ("-db", "-f", "{around}", "-f", "{shipped}")
KINDS = (
    Kind(
        "nginx http",
        "nginx",
        "nginx-http.conf",
        NGINX,
        "nginx-http.conf",
        usual_idle=60,  # ngx_http_proxy_module, proxy_read_timeout
    ),
    Kind(
        "nginx stream",
        "nginx",
        "nginx-stream.conf",
        NGINX,
        "nginx-stream.conf",
        passes_tls=True,
        usual_idle=600,  # ngx_stream_proxy_module, proxy_timeout
        needs=STREAM_MODULE,
    ),
    Kind(
        "haproxy tcp",
        "haproxy",
        "haproxy-tcp.cfg",
        HAPROXY,
        "haproxy.cfg",
        passes_tls=True,
        usual_idle=50,  # Debian's haproxy.cfg: HAProxy itself has no default
    ),
    Kind("haproxy http", "haproxy", "haproxy-http.cfg", HAPROXY, "haproxy.cfg", usual_idle=50),
    Kind(
        "caddy",
        "caddy",
        "Caddyfile",
        ("run", "--adapter", "caddyfile", "--config", "{around}"),
        "Caddyfile",
    ),
    Kind(
        "caddy layer4",
        "caddy-l4",
        "Caddyfile-layer4",
        ("run", "--adapter", "caddyfile", "--config", "{shipped}"),
        "Caddyfile",
        passes_tls=True,
    ),
    Kind(
        "frp",
        "frps",
        "frpc.toml",
        ("-c", "{around}"),
        "frps.toml",
        beside=("frpc", "-c", "{shipped}"),
        passes_tls=True,
    ),
)


def find(program: str) -> str | None:
    """Where it is: Debian's users have no sbin on their PATH."""
    usual = os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"
    return shutil.which(program, path=os.pathsep.join([*FOLDERS, *usual]))


def usual_idle(kind: Kind) -> float | None:
    """The default in seconds after which a silent connection ends, read where there is a file."""
    if kind.program == "haproxy" and HAPROXY_OF_DEBIAN.exists():
        text = HAPROXY_OF_DEBIAN.read_text()
        found = [
            re.search(rf"timeout {side}\s+(\d+)$", text, re.MULTILINE)
            for side in ("client", "server")
        ]
        return min(int(match[1]) for match in found if match) / 1000
    return kind.usual_idle


@attrs.frozen
class Proxy:
    """One that runs."""

    kind: Kind
    port: int
    afar: int
    """A port on which connections are passed on to `port`, from AFAR."""
    log_file: Path
    relay: Relay

    @property
    def url(self) -> str:
        return f"https://localhost:{self.afar}/derp"

    @property
    def node(self) -> dict[str, object]:
        """The relay as the DERP map has it, behind this proxy."""
        addresses = {"HostName": "localhost", "IPv4": "127.0.0.1", "IPv6": "none"}
        return {"Name": "900a", "RegionID": 900, **addresses, "DERPPort": self.afar}


@contextlib.contextmanager
def running(
    kind: Kind, folder: Path, ca: TestCA, relay: Relay, *, idle: float | None = None
) -> Iterator[Proxy]:
    """A proxy before a relay that is right for it.

    It ends connections that are silent for `idle` seconds, or for the time that is shipped. Skips
    the test where the program is not installed.
    """
    if why := kind.absent():
        pytest.skip(why)
    folder.mkdir(exist_ok=True)
    ca.issue(folder, "localhost")
    both = [folder / f"localhost.{end}" for end in ("crt", "key")]
    (folder / "both.pem").write_bytes(b"".join(path.read_bytes() for path in both))
    port = free_port()
    shipped, around = folder / f"shipped-{kind.shipped}", folder / f"around-{kind.around}"
    places = {"folder": folder, "port": port, "relay": relay.port, "shipped": shipped}
    places["beside"] = free_port()
    text = (SHIPPED / kind.shipped).read_text()
    if idle is not None:
        assert IDLE in text
        text = text.replace(IDLE, f"{idle:g}s")
    for place, here in PLACES.items():
        text = text.replace(place, Template(here).substitute(places))
    shipped.write_text(text)
    around.write_text(Template((CONF / kind.around).read_text()).substitute(places))
    log_file = folder / "proxy.log"
    commands = [(kind.program, *kind.command), *([kind.beside] if kind.beside else [])]
    with contextlib.ExitStack() as stack:
        for command in commands:
            words = [word.format(around=around, shipped=shipped) for word in command]
            process = stack.enter_context(started(words, folder, log_file))
        wait_until_it_accepts(process, port, log_file)
        yield Proxy(kind, port, stack.enter_context(from_afar(port)), log_file, relay)


@contextlib.contextmanager
def started(
    command: list[str], folder: Path, log_file: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that writes to a log file."""
    program = find(command[0])
    assert program
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_accepts(process: "subprocess.Popen[bytes]", port: int, log_file: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert process.poll() is None, log_file.read_text()
        assert time.monotonic() < deadline, log_file.read_text()
        time.sleep(0.05)


@contextlib.contextmanager
def from_afar(port: int) -> Iterator[int]:
    """Pass connections on to `port`, from AFAR; yield the port on which they are taken."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.field.afar", str(port), AFAR],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
    ) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
