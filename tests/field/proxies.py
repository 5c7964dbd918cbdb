"""The real nginx, HAProxy and Caddy before a relay, with the configurations in conf/.

Each proxy serves TLS on a port of its own, for as long as a `running` block.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template

import attrs
import pytest

from tests.interop.relay import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    Relay,
    TestCA,
    die_with_parent,
    free_port,
)

CONF = Path(__file__).resolve().parent / "conf"
HAPROXY_OF_DEBIAN = Path("/etc/haproxy/haproxy.cfg")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@attrs.frozen
class Kind:
    """A proxy, and what it is told."""

    name: str
    program: str
    conf: str
    command: tuple[str, ...]
    """`{}` is the configuration's path."""
    passes_tls: bool = False
    """Whether TLS is between client and relay, so that the proxy adds no header."""
    idle: str = ""
    """The setting, with `{}` for seconds, that ends a connection on which nothing moves."""
    usual_idle: float | None = None
    """Its default in seconds by the program's documentation; None for never."""
    needs: Path | None = None

    def absent(self) -> str:
        """Why it can't be run here; empty if it can."""
        if not find(self.program):
            return f"{self.program} is not installed"
        if self.needs and not self.needs.exists():
            return f"{self.program} lacks {self.needs}"
        return ""


NGINX = ("-e", "stderr", "-c", "{}")
KINDS = (
    Kind(
        "nginx http",
        "nginx",
        "nginx-http.conf",
        NGINX,
        idle="proxy_read_timeout {}s; proxy_send_timeout {}s;",
        usual_idle=60,  # ngx_http_proxy_module, proxy_read_timeout
    ),
    Kind(
        "nginx stream",
        "nginx",
        "nginx-stream.conf",
        NGINX,
        passes_tls=True,
        idle="proxy_timeout {}s;",
        usual_idle=600,  # ngx_stream_proxy_module, proxy_timeout
        needs=STREAM_MODULE,
    ),
    Kind(
        "haproxy tcp",
        "haproxy",
        "haproxy-tcp.cfg",
        ("-db", "-f", "{}"),
        passes_tls=True,
        idle="{}s",
        usual_idle=50,  # Debian's haproxy.cfg: HAProxy itself has no default
    ),
    Kind(
        "haproxy http",
        "haproxy",
        "haproxy-http.cfg",
        ("-db", "-f", "{}"),
        idle="{}s",
        usual_idle=50,
    ),
    Kind("caddy", "caddy", "Caddyfile", ("run", "--adapter", "caddyfile", "--config", "{}")),
)


def find(program: str) -> str | None:
    """Where it is: Debian's users have no sbin on their PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


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
    log_file: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/derp"

    @property
    def node(self) -> dict[str, object]:
        """The relay as the DERP map has it, behind this proxy."""
        addresses = {"HostName": "localhost", "IPv4": "127.0.0.1", "IPv6": "none"}
        return {"Name": "900a", "RegionID": 900, **addresses, "DERPPort": self.port}


@contextlib.contextmanager
def running(
    kind: Kind, folder: Path, ca: TestCA, *, plain: Relay, tls: Relay, idle: float | None = None
) -> Iterator[Proxy]:
    """A proxy before the one of the two relays that is right for it.

    It ends connections that are silent for `idle` seconds, or for its usual time. Skips the test
    where the program is not installed.
    """
    if why := kind.absent():
        pytest.skip(why)
    folder.mkdir(exist_ok=True)
    ca.issue(folder, "localhost")
    both = [folder / f"localhost.{end}" for end in ("crt", "key")]
    (folder / "both.pem").write_bytes(b"".join(path.read_bytes() for path in both))
    port = free_port()
    if idle is not None:
        timeout = kind.idle.replace("{}", f"{idle:g}")
    else:
        timeout = f"{kind.usual_idle:g}s" if kind.program == "haproxy" else ""
    conf = folder / kind.conf
    conf.write_text(
        Template((CONF / kind.conf).read_text()).substitute(
            folder=folder, port=port, plain=plain.port, tls=tls.port, timeout=timeout
        )
    )
    log_file = folder / "proxy.log"
    program = find(kind.program)
    assert program
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [program, *(word.replace("{}", str(conf)) for word in kind.command)],
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    try:
        wait_until_it_accepts(process, port, log_file)
        yield Proxy(kind, port, log_file)
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
