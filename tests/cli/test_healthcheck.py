"""`derper healthcheck`, asking relays that run and serve, or don't."""

import http.client
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from derp.cli import healthcheck
from derp.cli.probe import ProbeFailed
from derp.net.listenaddress import Address
from tests.patience import PATIENCE
from tests.process import Derper, derper
from tests.support.config import make_config

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow

HOST = "relay.example"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def flags(relay: Derper, *, tls: bool = True, stun: bool = True) -> list[str]:
    """Return the flags that the relay would have, had it not picked its ports itself."""
    port = relay.port("HTTPS" if tls else "HTTP")
    found = ["-a", f"127.0.0.1:{port}"]
    found += ["-stun-port", str(relay.port("STUN"))] if stun else ["-stun=false"]
    if tls:
        found += ["-certmode", "manual", "-hostname", "127.0.0.1", "-certdir", "/nowhere"]
    return found


def files(home: Path, name: str, **more: datetime) -> tuple[str, ...]:
    """Write a certificate of an authority that nobody knows; return the flags for it."""
    issued = trustme.CA().issue_cert(name, **more)
    issued.cert_chain_pems[0].write_to_path(home / "chain.pem")
    issued.private_key_pem.write_to_path(home / "key.pem")
    (home / "key.pem").chmod(0o600)
    own = ("-tls-cert", str(home / "chain.pem"), "-tls-key", str(home / "key.pem"))
    return ("-hostname", name, *own)


def varz(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/debug/varz")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def unhealthy(run: Run, *argv: str) -> str:
    """Run the health check, which has to fail in good form; return what it says."""
    code, out, err = run("healthcheck", *argv)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"derper: unhealthy: [^\n]+\n", err)
    return err.removeprefix("derper: unhealthy: ").rstrip("\n")


def test_a_relay_that_serves(tmp_path: Path, run: Run):
    with derper(tmp_path) as relay:
        code, out, err = run("healthcheck", *flags(relay))
        https, stun = relay.port("HTTPS"), relay.port("STUN")
    assert (code, err) == (0, "")
    pattern = (
        rf"healthy: DERP at 127\.0\.0\.1:{https} over TLSv1\.3, certificate until [-0-9: ]+ UTC, "
        rf"STUN at 127\.0\.0\.1:{stun}, key [0-9a-f]{{64}}\n"
    )
    assert re.fullmatch(pattern, out)


def test_a_container_needs_no_arguments(tmp_path: Path):
    with derper(tmp_path) as relay:
        given = dict(zip(("DERP_ADDR", "DERP_STUN_PORT"), flags(relay)[1::2], strict=False))
        rest = {"DERP_CERT_MODE": "manual", "DERP_DOMAIN": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-m", "derp", "healthcheck"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, **given, **rest},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("healthy: ")


def test_stun_on_an_address_of_its_own(tmp_path: Path, run: Run):
    with derper(tmp_path, "-stun-addr", "127.0.0.2") as relay:
        port = relay.wait_for(r"what=STUN address=127\.0\.0\.2:(\d+)")[1]
        told = ("-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", port)
        told = (*told, "-certmode", "manual", "-hostname", "127.0.0.1")
        code, out, _ = run("healthcheck", *told, "-stun-addr", "127.0.0.2")
        assert (code, f", STUN at 127.0.0.2:{port}, " in out) == (0, True)
        assert f"UDP 127.0.0.1:{port}" in unhealthy(run, *told)


def test_every_address_is_asked_over_loopback(tmp_path: Path, run: Run):
    with derper(tmp_path) as relay:
        everywhere = [flag.replace("127.0.0.1:", ":") for flag in flags(relay)]
        assert run("healthcheck", *everywhere)[0] == 0


def test_plain_http(tmp_path: Path, run: Run):
    with derper(tmp_path, "-stun=false", tls=False) as relay:
        code, out, _ = run("healthcheck", *flags(relay, tls=False, stun=False))
    assert code == 0
    assert re.fullmatch(r"healthy: DERP at 127\.0\.0\.1:\d+, key [0-9a-f]{64}\n", out)


def test_a_relay_that_relays_nothing(tmp_path: Path, run: Run):
    with derper(tmp_path, "-derp=false") as relay:
        code, out, _ = run("healthcheck", *flags(relay), "-derp=false")
        assert code == 0
        assert out.startswith("healthy: pages at 127.0.0.1:")
        assert "HTTP/1.1 404 Not Found; look into" in unhealthy(run, *flags(relay))


def test_neither_name_nor_authority_of_the_certificate_count(tmp_path: Path, run: Run):
    own = files(tmp_path, HOST)
    with derper(tmp_path, *own) as relay:
        assert run("healthcheck", *flags(relay), *own)[0] == 0
        other = unhealthy(run, *flags(relay), "-hostname", "other.example")
        assert other.endswith(": the relay is not other.example; want its -hostname")


def test_a_certificate_that_has_expired(tmp_path: Path, run: Run):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    own = files(tmp_path, HOST, not_before=yesterday - timedelta(days=90), not_after=yesterday)
    with derper(tmp_path, *own) as relay:
        said = unhealthy(run, *flags(relay), *own)
    assert said.startswith(f"the served certificate expired on {yesterday:%Y-%m-%d %H:%M} UTC, ")


def test_a_certificate_of_the_future(tmp_path: Path, run: Run):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    own = files(tmp_path, HOST, not_before=tomorrow, not_after=tomorrow + timedelta(days=90))
    with derper(tmp_path, *own) as relay:
        said = unhealthy(run, *flags(relay), *own)
    assert said.startswith(f"the served certificate is not valid before {tomorrow:%Y-%m-%d} ")


def test_a_certificate_that_is_awaited(tmp_path: Path, run: Run, silent: int):
    directory = f"https://127.0.0.1:{silent}/dir"
    acme = ("-certmode", "letsencrypt", "-acme-directory", directory, "-hostname", HOST)
    with derper(tmp_path, *acme) as relay:
        said = unhealthy(run, *flags(relay), *acme)
    assert f": the certificate for {HOST} from {directory} is awaited; " in said


@pytest.mark.parametrize("tls", [True, False])
def test_it_leaves_no_refusal_behind(tmp_path: Path, run: Run, tls: bool):
    with derper(tmp_path, tls=tls) as relay:
        assert run("healthcheck", *flags(relay, tls=tls))[0] == 0
        page = varz(relay.port("HTTP"))
        assert relay.stop() == 0
    assert not any("refused" in line for line in relay.log)
    assert re.search(r"^derp_accepts 1$", page, re.MULTILINE)
    ends = dict(re.findall(r'^derp_connection_ends\{reason="(\w+)"\} (\d+)$', page, re.MULTILINE))
    assert {reason for reason, count in ends.items() if count != "0"} <= {"closed"}


def test_nobody_is_refused_by_it(tmp_path: Path, run: Run):
    (tmp_path / "nodes").write_text(f"nodekey:{bytes(range(32)).hex()} another\n")
    with derper(tmp_path, "-verify-client-file", str(tmp_path / "nodes")) as relay:
        assert run("healthcheck", *flags(relay))[0] == 0
        page = varz(relay.port("HTTP"))
        relay.stop()
    assert 'derp_connection_ends{reason="not_admitted"} 0\n' in page
    assert not re.search(r"^derper_admission\w+\{.*\} [1-9]", page, re.MULTILINE)
    assert not any("not_admitted" in line for line in relay.log)


def test_a_relay_that_was_stopped(tmp_path: Path, run: Run):
    with derper(tmp_path) as relay:
        where = flags(relay)
    assert re.match(r"TCP 127\.0\.0\.1:\d+: connection refused; start ", unhealthy(run, *where))


def test_stun_that_is_missing(tmp_path: Path, run: Run):
    with derper(tmp_path) as other:
        stun = str(other.port("STUN"))
    with derper(tmp_path, "-stun=false") as relay:
        said = unhealthy(run, *flags(relay, stun=False), "-stun", "-stun-port", stun)
    assert said.startswith(f"UDP 127.0.0.1:{stun}: connection refused; look into")
    assert "-stun=false" in said


def test_http_where_tls_is_wanted_and_the_other_way_round(tmp_path: Path, run: Run):
    with derper(tmp_path, tls=False) as relay:
        plain = flags(relay, tls=False)
        said = unhealthy(run, *plain, "-certmode", "manual", "-hostname", HOST)
        assert " does not speak TLS; " in said
    with derper(tmp_path) as relay:
        assert "; look into the relay's log" in unhealthy(run, *flags(relay)[:4])


async def test_who_is_silent_is_given_4_5_seconds(silent: int, autojump_clock: MockClock):
    config = make_config(
        c="/k",
        certdir="/c",
        certmode="manual",
        hostname=HOST,
        a=Address("127.0.0.1", silent),
    )
    with pytest.raises(ProbeFailed, match="does not answer the TLS handshake"):
        await healthcheck.examine(config)
    assert trio.current_time() == pytest.approx(4.5)


class Resolver(trio.abc.HostnameResolver):
    """Knows no name, and takes its time about one."""

    async def getaddrinfo(self, host: bytes, *_: object, **_more: object) -> list[Any]:
        if host == b"slow.example":
            await trio.sleep_forever()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.example", r"-a gone\.example:443: Name or service not known$"),
        ("slow.example", r"-a slow\.example:443: the look-up of the name takes too long$"),
    ],
)
async def test_a_name_in_place_of_an_address(autojump_clock: MockClock, name: str, words: str):
    trio.socket.set_custom_hostname_resolver(Resolver())
    config = make_config(c="/k", certdir="/c", hostname=HOST, a=Address(name, 443))
    with pytest.raises(ProbeFailed, match=words):
        await healthcheck.examine(config)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-a", ":0"), "-a :0: any free port; want the one that the relay has"),
        (("-stun-port=0",), "-stun-port=0: any free port; want the one that the relay has"),
        (("-format", "json"), "-format: no such flag; "),
        (("derpmap",), "derpmap: not a flag; want "),
        (("-hostname", "your-hostname.com"), "-hostname your-hostname.com: that is a placeholder"),
    ],
)
def test_wrong_flags(run: Run, argv: tuple[str, ...], line: str):
    code, out, err = run("healthcheck", "-hostname", HOST, *argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"derper: {line}")
    assert err.count("\n") == 1


def test_help(run: Run):
    code, out, err = run("healthcheck", "-h")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: derper healthcheck [flags]\n")
    assert max(map(len, out.splitlines())) <= 80
