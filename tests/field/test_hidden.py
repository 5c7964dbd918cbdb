"""A hidden relay beside the real nginx that it imitates: told the same, they say the same."""

import difflib
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence

import attrs
import pytest

from tests.field.empty import PATIENCE, Server, nginx, said
from tests.interop.relay import Relay, TestCA, certificate_chain, running
from tests.support.derp import UPGRADE, upgrade_request

OURS = [sys.executable, "-m", "derp"]
FUZZED = 600
SEED = 20261201


@attrs.frozen
class Pair:
    """The real one and ours, and a client's context that knows their certificates."""

    real: Server
    ours: Server
    relay: Relay
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def pair(test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("hidden")
    test_ca.issue(folder, "localhost")
    relay = Relay("hidden", OURS, folder, stun=True, flags=["-home", "hidden"])
    context = ssl.create_default_context(cafile=test_ca.pem)
    with nginx(tmp_path_factory.mktemp("nginx"), test_ca) as real, running(relay):
        yield Pair(real, Server(relay.http_port, relay.port), relay, context)


HOST = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
PROBES = {
    "get": HOST + b"\r\n",
    "head": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "http/1.0 that goes on": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "http/0.9": b"GET /\r\n",
    "http/0.9 of another method": b"POST /\n",
    "http/1.9": b"GET / HTTP/1.9\r\nHost: x\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/3.0": b"GET / HTTP/3.0\r\n\r\n",
    "any method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "options": b"OPTIONS / HTTP/1.0\r\n\r\n",
    "options of all": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "rtsp": b"OPTIONS / RTSP/1.0\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "connect to a path": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "small letters": b"get / http/1.1\r\n\r\n",
    "bytes": b"\x80\x00garbage",
    "a word": b"HELP\r\n",
    "ssh": b"SSH-2.0-x\r\n",
    "tls": b"\x16\x03\x01\x00\x10hello",
    "empty lines": b"\r\n\n\r\n" + HOST + b"\r\n",
    "very many empty lines": b"\r\n" * 3000 + HOST + b"\r\n",
    "line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "carriage returns": b"GET / HTTP/1.1\rHost: x\r\r",
    "two at once": HOST + b"\r\n" + HOST + b"Connection: close\r\n\r\n" + HOST + b"\r\n",
    "half": HOST,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "a host without a colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "a wrong host": b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
    "two hosts": HOST + b"Host: y\r\n\r\n",
    "a url": b"GET http://a/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a url with an address": b"GET http://[::1]:80?x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a url with a wrong host": b"GET http://a..b/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a wrong escape": b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "an escaped zero": b"GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "above the root": b"GET /a/%2e%2e/%2e%2e/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "up and down": b"GET //a/./b/../../c HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body": HOST + b"Content-Length: 5\r\n\r\nhello" + HOST + b"\r\n",
    "half a body": HOST + b"Content-Length: 50\r\n\r\nhello",
    "no number": HOST + b"Content-Length: x\r\n\r\n",
    "too large a body": HOST + b"Content-Length: 2000000\r\n\r\n",
    "chunks": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + HOST + b"\r\n",
    "chunks with more": CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + HOST + b"\r\n",
    "wrong chunks": CHUNKED + b"zz\r\n",
    "another coding": HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "both lengths": HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "coding in http/1.0": b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "expectation": HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "chrome": HOST + b"User-Agent: Mozilla/5.0 (KHTML, like Gecko) Chrome/1\r\n\r\n",
    "firefox": HOST + b"User-Agent: Mozilla/5.0 Gecko/20100101 Firefox/115.0\r\n\r\n",
    "internet explorer": HOST + b"User-Agent: Mozilla/4.0 (MSIE 6.0; Windows)\r\n\r\n",
    "post of internet explorer": b"POST / HTTP/1.1\r\nHost: x\r\nUser-Agent: (MSIE 6.0; W)\r\n\r\n",
    "close": HOST + b"Connection: close\r\n\r\n",
    "close and keep-alive": HOST + b"Connection: keep-alive, Close\r\n\r\n",
    "a name with a space": HOST + b"A b: c\r\n\r\n",
    "a folded line": HOST + b" folded\r\n\r\n",
    "a name with an underscore": HOST + b"A_b: c\r\n\r\n",
    "a zero in a value": HOST + b"a: b\0c\r\n\r\n",
    "long path": b"GET /" + b"a" * 8100 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "too long a path": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n",
    "too long a path to head": b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\n",
    "long value": HOST + b"X: " + b"a" * 8180 + b"\r\n\r\n",
    "too long a value": HOST + b"X: " + b"a" * 9000 + b"\r\n\r\n",
    "four long values": HOST + (b"X: " + b"a" * 7000 + b"\r\n") * 4 + b"\r\n",
    "five long values": HOST + (b"X: " + b"a" * 7000 + b"\r\n") * 5 + b"\r\n",
    "nmap's": b"GET /nice%20ports%2C/Tri%6Eity.txt%2ebak HTTP/1.0\r\n\r\n",
    "proxy protocol": b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n" + HOST + b"\r\n",
    "proxy protocol 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"a" * 12 + HOST + b"\r\n",
    "a proxied client": HOST + b"X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.9\r\n\r\n",
    "/derp": b"GET /derp HTTP/1.1\r\nHost: x\r\n\r\n",
    "a websocket": upgrade_request("Upgrade: websocket", "Connection: Upgrade", host="x"),
    "an upgrade of another path": upgrade_request(*UPGRADE, path="/derp/", host="x"),
    "an upgrade of another kind": upgrade_request("Upgrade: h2c", "Connection: Upgrade", host="x"),
    "an upgrade by http/1.0": b"GET /derp HTTP/1.0\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
    **{
        path: f"GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8.0\r\n\r\n".encode()
        for path in (
            *("/derp/probe", "/derp/latency-check", "/generate_204", "/bootstrap-dns"),
            *("/robots.txt", "/favicon.ico", "/.well-known/acme-challenge/x", "/metrics"),
        )
    },
    # From here the pages are open to those who ask as the operator does.
    "/debug/": b"GET /debug/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_the_answer_is_nginxs_byte_for_byte(pair: Pair, probe: bytes) -> None:
    for context in (None, pair.context):
        assert said(pair.ours, [probe], context) == said(pair.real, [probe], context)
    # Of a wrong chunk, nginx too says `close` only if it has come together with the head.
    if len(probe) < 100 and probe != PROBES["wrong chunks"]:
        pieces = [probe[at : at + 1] for at in range(len(probe))]
        assert said(pair.ours, pieces) == said(pair.real, pieces)
    # Plain HTTP on the port that has TLS.
    ours, real = (Server(each.tls, 0) for each in (pair.ours, pair.real))
    if probe[0] not in {0x16, 0x80}:
        assert said(ours, [probe]) == said(real, [probe])


ODD = b"\r\n \t:/%.?#[]0123456789azAZ\0\x7f\x80-_"
ODD_WORDS = (b"\r\n", b"%2e", b"..", b"Host: x\r\n", b" HTTP/1.1", b"http://", b"\r\n\r\n")


def fuzzed(chance: random.Random) -> list[bytes]:
    """A probe with some mistakes, in one or two pieces."""
    # How chunks arrive may decide what is found wrong before the answer.
    names = [name for name in PROBES if len(PROBES[name]) < 200 and "chunk" not in name]
    probe = bytearray(PROBES[chance.choice(names)])
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(probe) + 1)
        match chance.randrange(4):
            case 0:
                probe[at:at] = bytes([chance.choice(ODD)])
            case 1:
                del probe[at : at + chance.randint(1, 5)]
            case 2:
                probe[at:at] = chance.choice(ODD_WORDS)
            case _:
                probe[at:at] = probe[at : at + chance.randint(1, 200)]
    cut = chance.randrange(len(probe) + 1)
    return [bytes(piece) for piece in (probe[:cut], probe[cut:]) if piece]


def test_so_it_is_for_probes_with_mistakes(pair: Pair) -> None:
    chance = random.Random(SEED)
    for _ in range(FUZZED):
        pieces = fuzzed(chance)
        # As DERP it would be a client's.
        if b"DERP" in b"".join(pieces):
            continue
        context = chance.choice((None, None, pair.context))
        ours, real = said(pair.ours, pieces, context), said(pair.real, pieces, context)
        assert ours == real, pieces


HELLOS = {
    "tls 1.3": ("-servername", "localhost"),
    "tls 1.2": ("-servername", "localhost", "-tls1_2"),
    "tls 1.1": ("-servername", "localhost", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
    "no name": ("-noservername",),
    "another name": ("-servername", "other.example"),
    "http/2 only": ("-servername", "localhost", "-alpn", "h2"),
    "http/1.0": ("-servername", "localhost", "-alpn", "h2,http/1.0"),
    "http/2 of another name": ("-servername", "other.example", "-alpn", "h2"),
    "an unknown group": ("-servername", "localhost", "-groups", "brainpoolP256r1"),
    **{
        cipher: ("-servername", "localhost", "-tls1_2", "-cipher", cipher)
        for cipher in (
            *("AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            *("ECDHE-ECDSA-CAMELLIA256-SHA384", "ECDHE-ECDSA-ARIA256-GCM-SHA384"),
        )
    },
}
TOLD = re.compile(r"alert|Protocol|Cipher|ALPN|Temp Key|lifetime|Renegotiation|master secret|New,")


def handshake(port: int, *arguments: str) -> list[str]:
    """What openssl says of a handshake, as far as it is about the server's TLS."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    # A request, so that it reads what comes with the answer: session tickets.
    done = subprocess.run(
        [*command, "-ign_eof"],
        input="GET / HTTP/1.0\r\n\r\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [re.sub(r"^[0-9A-F]+:error", "error", line) for line in lines if TOLD.search(line)]


@pytest.mark.parametrize("hello", HELLOS.values(), ids=HELLOS)
def test_so_are_handshakes(pair: Pair, hello: Sequence[str]) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    ours, real = (handshake(each.tls, *hello) for each in (pair.ours, pair.real))
    assert real
    assert ours == real, "\n".join(difflib.unified_diff(real, ours, "nginx", "ours"))


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"a" * 100, b"\x16"),
        *(b"\x80\x2e\x01\x03\x01\x00\x15" + b"a" * 40, b"\xff\xff\xff\xff", b"\x16\0\0\0\1\1"),
    ],
    ids=["no hello", "too long", "a byte", "SSLv2", "ones", "a wrong version"],
)
def test_so_are_the_ends_of_what_is_no_handshake(pair: Pair, data: bytes) -> None:
    ours, real = (Server(each.tls, 0) for each in (pair.ours, pair.real))
    assert said(ours, [data]) == said(real, [data])


def test_no_certificate_tells_of_derp(pair: Pair) -> None:
    chain = certificate_chain(pair.relay)
    assert chain
    assert not [each for each in chain if b"derpkey" in each]


PASSING = re.compile(r"^(Starting|#|Nmap|Host is up|\| +Date:|PORT|Service detection)|Testing cert")
"""Lines that differ between two runs."""


def nmap(server: Server, *more: str) -> list[str]:
    """What nmap says of the ports, that of the plain one first."""
    ports = f"{server.plain},{server.tls}"
    command = ["nmap", "-Pn", "-n", "-oN", "-", "-p", ports, *more, "127.0.0.1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=True
    )
    names = {f"{server.plain}": "PLAIN", f"{server.tls}": "TLS"}
    text = re.sub("|".join(names), lambda match: names[match[0]], done.stdout)
    lines = [re.sub(r" +", " ", line) for line in text.splitlines()]
    kept = [line for line in lines if line and not PASSING.search(line)]
    # Ports in the order of their numbers, which are whatever was free.
    blocks: list[list[str]] = []
    for line in kept:
        if re.match(r"(PLAIN|TLS)/", line) or not blocks:
            blocks.append([])
        blocks[-1].append(line.replace("|_", "| "))
    return [line for block in sorted(blocks) for line in [block[0], *sorted(block[1:])]]


SCRIPTS = "default,http-headers,http-methods,ssl-enum-ciphers,tls-alpn,http-server-header"


@pytest.mark.parametrize(
    "more", [("-sV", "--version-all"), ("--script", SCRIPTS)], ids=["-sV", "scripts"]
)
def test_nmap_takes_it_for_nginx(pair: Pair, more: tuple[str, ...]) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    ours, real = nmap(pair.ours, *more), nmap(pair.real, *more)
    if more[0] == "-sV":
        assert ours[:1] == ["PLAIN/tcp open http nginx"]
        assert "TLS/tcp open ssl/http nginx" in ours
    assert ours == real


def test_the_relay_is_there(pair: Pair) -> None:
    """And what a client asks is answered, on the same port."""
    answer = said(pair.ours, [upgrade_request(*UPGRADE)], pair.context)
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n")
    challenge = b"GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: ts_x\r\n\r\n"
    assert b"X-Tailscale-Response: response ts_x\r\n" in said(pair.ours, [challenge])
    asked = subprocess.run(
        [*OURS, "healthcheck", *pair.relay.arguments()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    with socket.create_connection(("127.0.0.1", pair.relay.http_port), PATIENCE) as own:
        own.sendall(b"GET /debug/varz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert own.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
