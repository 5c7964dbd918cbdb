"""What a relay has loaded that has nothing to do: no library that only seldom work needs."""

import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from certs.files import pair_files
from certs.selfsigned import write_self_signed
from tests.process import Derper, derper, insecure
from tests.support.authority import issuer

HOST = "relay.example"

LARGE = {
    *("acme", "cryptography", "dns", "josepy", "requests"),
    *("trio_websocket", "websockets", "wsproto"),
    *("difflib", "email", "html", "http.client", "urllib.request"),
}
"""Each takes a quarter of a megabyte or more."""

# Python runs it before all else; the processes of `certs.apart`, which end at once, do not.
NOTE = """
import atexit, os, sys

def note():
    with open(os.path.join({folder!r}, str(os.getpid())), "w") as file:
        print(*sys.modules, file=file)

def end(code, end=os._exit):
    note()
    end(code)

atexit.register(note)
os._exit = end
"""


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which each process leaves the names of the modules that it had loaded."""
    folder, code = tmp_path / "noted", tmp_path / "code"
    folder.mkdir()
    code.mkdir()
    (code / "sitecustomize.py").write_text(NOTE.format(folder=str(folder)))
    path = [str(code), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    return folder


def loaded(noted: Path) -> Mapping[str, set[str]]:
    return {file.name: set(file.read_text().split()) for file in noted.iterdir()}


def ask(relay: Derper, name: str) -> None:
    """Ask for the first page over HTTPS."""
    with (
        closing(socket.create_connection(("127.0.0.1", relay.port("HTTPS")), 10)) as sock,
        insecure().wrap_socket(sock, server_hostname=name) as tls,
    ):
        assert isinstance(tls, ssl.SSLSocket)
        tls.sendall(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
        assert tls.recv(64).startswith(b"HTTP/1.1 200")


def check(noted: Path, relay: Derper, processes: int, *, unwanted: set[str]) -> None:
    assert relay.stop() == 0, relay.log
    found = loaded(noted)
    assert len(found) == processes
    for modules in found.values():
        assert {"derp.cli.main", "trio", "nacl"} <= modules
        assert not modules & unwanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "processes", "unwanted"),
    [
        ((), 1, LARGE),
        (("-derp=false",), 1, LARGE),
        (("-verify-clients", "-socket", "/does/not/exist"), 1, LARGE),
        (("-workers", "2"), 3, LARGE),
    ],
    ids=["manual", "stun-only", "verify-clients", "workers"],
)
def test_a_certificate_of_the_operators(
    tmp_path: Path, noted: Path, flags: tuple[str, ...], processes: int, unwanted: set[str]
) -> None:
    (tmp_path / "certs").mkdir()
    files = pair_files(tmp_path / "certs", "127.0.0.1")
    write_self_signed(files, ip_address("127.0.0.1"), datetime.now(UTC))
    with derper(tmp_path, *flags) as relay:
        ask(relay, "127.0.0.1")
        check(noted, relay, processes, unwanted=unwanted)


@pytest.mark.slow
def test_a_self_signed_certificate_is_made(tmp_path: Path, noted: Path) -> None:
    with derper(tmp_path) as relay:
        ask(relay, "127.0.0.1")
        check(noted, relay, 1, unwanted=LARGE)


TSIG = "RFC2136_TSIG_KEY=acme.\nRFC2136_TSIG_SECRET=c2VjcmV0\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "credentials"),
    [
        ((), ""),
        (("-acme-dns", "rfc2136"), TSIG),
        (("-acme-dns", "cloudflare"), "LEXICON_CLOUDFLARE_AUTH_TOKEN=secret\n"),
        (("-acme-dns-exec", "/bin/true"), ""),
    ],
    ids=["without dns", "rfc2136", "lexicon", "exec"],
)
def test_a_valid_certificate_by_acme(
    tmp_path: Path, noted: Path, flags: tuple[str, ...], credentials: str
) -> None:
    certdir = tmp_path / "certs"
    certdir.mkdir(mode=0o700)
    issuer(certdir)(HOST)
    if credentials:
        file = tmp_path / "credentials"
        file.touch(0o600)
        file.write_text(credentials)
        flags = (*flags, "-acme-dns-credentials", str(file))
    by_acme = ("-certmode", "letsencrypt", "-hostname", HOST, "-acme-directory")
    with derper(tmp_path, *by_acme, "https://127.0.0.1:1/directory", *flags) as relay:
        ask(relay, HOST)
        relay.wait_for("can't ask when to renew")
        check(noted, relay, 1, unwanted=LARGE)
