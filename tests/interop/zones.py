"""Real name servers with the zone derp.test, in a network namespace, on port 53.

BIND: a primary that takes updates with a TSIG key, and a secondary that gets the zone from it.
Knot: one server that takes the same updates. PowerDNS: one whose zone is changed by its HTTP
interface. All are Debian's.
"""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import dns.message
import dns.query
import dns.rdatatype
import pytest

from tests.interop.netns import Namespace
from tests.interop.pebble import NameServer
from tests.interop.relay import environment
from tests.interop.tailnet import background
from tests.support.waiting import until

ZONE, OTHER_ZONE = "derp.test", "elsewhere.test"
PRIMARY, SECONDARY, NOBODY = "127.0.0.1", "127.0.0.2", "127.0.0.9"
KEY_NAME, SECRET = "derper-key", "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMhISE="
"""The secret is 32 bytes."""
API_KEY = "pdns-secret-api-key"

_ZONE_FILE = """\
$TTL 60
@ SOA ns1.{zone}. hostmaster.{zone}. 1 60 60 600 60
@ NS ns1.{zone}.
@ NS ns2.{zone}.
ns1 A {primary}
ns2 A {secondary}
* A 127.0.0.77
{more}
"""


@attrs.frozen
class Zones(NameServer):
    """The resolver that pebble asks; it knows where every name is."""

    def point(self, name: str, address: str) -> None:
        """Do nothing: nobody is asked by address."""


def skip_without(*programs: str) -> None:
    path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        pytest.skip(f"not installed, so not tested: {', '.join(missing)}")


def key_file(folder: Path, secret: str = SECRET, name: str = KEY_NAME) -> Path:
    """What tsig-keygen prints, in a file."""
    path = folder / "tsig.key"
    text = f'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n'
    path.write_text(text)
    path.chmod(0o600)
    return path


def texts(space: Namespace, server: str, name: str) -> list[str]:
    """The TXT records of a name at one server."""
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    with contextlib.closing(space.connect((server, 53))) as sock:
        response = dns.query.tcp(query, server, timeout=10, sock=sock)
    return [
        b"".join(each.strings).decode()
        for rrset in response.answer
        for each in rrset
        if rrset.rdtype == dns.rdatatype.TXT
    ]


def has_zone(space: Namespace, server: str, zone: str) -> bool:
    with contextlib.suppress(OSError, EOFError):
        query = dns.message.make_query(zone, dns.rdatatype.SOA)
        with contextlib.closing(space.connect((server, 53))) as sock:
            return bool(dns.query.tcp(query, server, timeout=10, sock=sock).answer)
    return False


@attrs.frozen
class Bind:
    """The primary and the secondary."""

    folder: Path
    space: Namespace
    _processes: dict[str, subprocess.Popen[str]] = attrs.Factory(dict)

    @property
    def names(self) -> Zones:
        return Zones(53, 0, self.space)

    def log(self, server: str) -> str:
        return (self.folder / f"{server}.log").read_text(errors="replace")

    @contextlib.contextmanager
    def running(self, server: str) -> Iterator[subprocess.Popen[str]]:
        config = self._config(server)
        command = [*self.space.prefix, "/usr/sbin/named", "-g", "-c", str(config)]
        with background(command, self.folder / f"{server}.log", environment()) as process:
            until(
                f"{server} has the zones",
                lambda: all(has_zone(self.space, server, zone) for zone in (ZONE, OTHER_ZONE)),
            )
            self._processes[server] = process
            yield process

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the secondary answer as before, and learn nothing new, as long as the block runs."""
        self._reconfigure(primary=NOBODY)
        try:
            yield
        finally:
            self._reconfigure(primary=PRIMARY)

    def _reconfigure(self, primary: str) -> None:
        done = "reloading configuration succeeded"
        before = self.log(SECONDARY).count(done)
        self._config(SECONDARY, primary)
        self._processes[SECONDARY].send_signal(signal.SIGHUP)
        until("it is reconfigured", lambda: self.log(SECONDARY).count(done) > before)

    def _config(self, server: str, primary: str = PRIMARY) -> Path:
        folder = self.folder / server
        folder.mkdir(exist_ok=True)
        config = folder / "named.conf"
        # Pebble wants to be led through CNAMEs.
        recursion = "recursion yes; allow-recursion { any; };"
        zones = "".join(self._zone(server, folder, zone, primary) for zone in (ZONE, OTHER_ZONE))
        config.write_text(
            f'options {{ directory "{folder}"; listen-on port 53 {{ {server}; }}; '
            f"listen-on-v6 {{ none; }}; {recursion} pid-file none; session-keyfile none; "
            f"allow-transfer {{ 127.0.0.0/8; }}; notify explicit; also-notify {{ {SECONDARY}; }}; "
            f"notify-source {server}; transfer-source {server}; notify-delay 0; "
            f"min-refresh-time 1; dnssec-validation no; }};\n"
            f"controls {{ }};\n{key_file(self.folder).read_text()}{zones}"
        )
        return config

    def _zone(self, server: str, folder: Path, zone: str, primary: str) -> str:
        if server == SECONDARY:
            return (
                f'zone "{zone}" {{ type secondary; primaries {{ {primary}; }}; '
                f'file "{zone}"; allow-notify {{ {primary}; }}; }};\n'
            )
        more = f"_acme-challenge.led CNAME led.{OTHER_ZONE}.\n" if zone == ZONE else ""
        more += "ns A 127.0.0.1\n"
        if not (folder / zone).exists():
            (folder / zone).write_text(
                _ZONE_FILE.format(zone=zone, primary=PRIMARY, secondary=SECONDARY, more=more)
            )
        grant = f"grant {KEY_NAME} zonesub TXT;"
        return f'zone "{zone}" {{ type primary; file "{zone}"; update-policy {{ {grant} }}; }};\n'


@contextlib.contextmanager
def power_dns(folder: Path, space: Namespace) -> Iterator[NameServer]:
    """PowerDNS, whose HTTP interface is at 127.0.0.1:8081."""
    folder.mkdir(exist_ok=True)
    config = folder / "pdns.conf"
    config.write_text(
        "launch=gsqlite3\n"
        f"gsqlite3-database={folder}/pdns.db\n"
        "local-address=127.0.0.1\nlocal-port=53\n"
        f"socket-dir={folder}\n"
        "api=yes\nwebserver=yes\nwebserver-address=127.0.0.1\nwebserver-port=8081\n"
        f"api-key={API_KEY}\n"
        "cache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\n"
    )
    schema = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
    with schema.open() as stream:
        subprocess.run(["sqlite3", f"{folder}/pdns.db"], stdin=stream, timeout=30, check=True)
    tool = ["pdnsutil", "--config-dir", str(folder)]
    for command in (
        ("create-zone", ZONE, f"ns1.{ZONE}"),
        ("add-record", ZONE, "ns1", "A", "127.0.0.1"),
    ):
        subprocess.run([*tool, *command], timeout=30, check=True, capture_output=True)
    serve = [
        *space.prefix,
        "/usr/sbin/pdns_server",
        f"--config-dir={folder}",
        "--guardian=no",
        "--daemon=no",
        "--disable-syslog",
        "--write-pid=no",
    ]
    with background(serve, folder / "pdns.log", environment()):
        until("PowerDNS has the zone", lambda: has_zone(space, "127.0.0.1", ZONE))
        yield Zones(53, 0, space)


@contextlib.contextmanager
def knot(folder: Path, space: Namespace) -> Iterator[NameServer]:
    """Knot, whose key may change TXT records only."""
    folder.mkdir(exist_ok=True)
    zone = _ZONE_FILE.format(zone=ZONE, primary=PRIMARY, secondary=PRIMARY, more="")
    (folder / "zone").write_text(zone)
    config = folder / "knot.conf"
    config.write_text(
        f"server:\n  rundir: {folder}\n  listen: {PRIMARY}@53\n"
        f"database:\n  storage: {folder}\n"
        f"log:\n  - target: stderr\n    any: info\n"
        f"key:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
        f"acl:\n  - id: derper\n    key: {KEY_NAME}\n    action: update\n    update-type: TXT\n"
        f"zone:\n  - domain: {ZONE}\n    storage: {folder}\n    file: zone\n    acl: derper\n"
    )
    serve = [*space.prefix, "/usr/sbin/knotd", "-c", str(config)]
    with background(serve, folder / "knot.log", environment()):
        until("Knot has the zone", lambda: has_zone(space, PRIMARY, ZONE))
        yield Zones(53, 0, space)
