"""Names that pebble validates by DNS: HTTPS on any port, and nothing on 80 and 443."""

import contextlib
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest

from tests.interop.issuing import Shaken, acme_relay, hang_up, shake
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.pebble import NameServer, Pebble, name_server
from tests.interop.relay import Relay, environment, free_port, running
from tests.interop.tailnet import background
from tests.interop.zones import (
    API_KEY,
    KEY_NAME,
    OTHER_ZONE,
    PRIMARY,
    SECONDARY,
    SECRET,
    ZONE,
    Bind,
    key_file,
    knot,
    power_dns,
    skip_without,
    texts,
)
from tests.support.waiting import until

HERE = Path(__file__).parent
JOURNAL = ".acme.records"
WRONG_SECRET = "d3JvbmcgYXMgd3JvbmcgY2FuIGJlLCAzMiBieXRlcyE="


@attrs.frozen
class Place:
    """A namespace with name servers, and a pebble that asks them."""

    space: Namespace
    authority: Pebble
    command: list[str]
    bind: Bind | None = None

    def relay(self, folder: Path, hostname: str, *flags: str, **fields: object) -> Relay:
        """A relay on a port of its own, without HTTP."""
        settings: dict[str, object] = {
            "port": free_port(),
            "http_port": -1,
            "prefix": self.space.prefix,
            **fields,
        }
        more = ("-acme-dns-resolvers", PRIMARY, *flags)
        return acme_relay(
            self.command, folder, self.authority, hostname, "127.0.0.1", *more, **settings
        )

    def shake(self, relay: Relay, name: str, trust: ssl.SSLContext | None = None) -> Shaken:
        return shake((relay.host, relay.port), name, trust, dial=self.space.connect)

    def issued(self, relay: Relay, *names: str) -> Shaken:
        """Wait until all the names are served."""
        for name in names:
            try:
                until("there is a certificate", lambda name=name: self.shake(relay, name).chain)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{relay.log}\n{self.authority.log}") from None
        return [self.shake(relay, name, self.authority.trust()) for name in names][-1]

    def left(self, domain: str, servers: Sequence[str] = (PRIMARY,)) -> list[str]:
        """The records that are there for a name."""
        name = f"_acme-challenge.{domain}"
        return [text for server in servers for text in texts(self.space, server, name)]


@contextmanager
def asking(
    names: NameServer, binaries: dict[str, Path], folder: Path, space: Namespace
) -> Iterator[Pebble]:
    """A pebble that asks these name servers."""
    folder.mkdir(exist_ok=True)
    authority = Pebble(folder, binaries, names, space=space)
    try:
        authority.start()
        yield authority
    finally:
        authority.stop()


@pytest.fixture(scope="module")
def make_space(is_go: bool) -> object:
    if is_go:
        pytest.skip("the Go derper asks no other authority than its own")
    skip_unless_possible("no network where name servers have port 53")

    @contextmanager
    def make() -> Iterator[Namespace]:
        with closing(Namespace.make()) as made:
            # BIND listens on what an interface has.
            made.address("lo", f"{SECONDARY}/8")
            yield made

    return make


@pytest.fixture(scope="module")
def bind(
    under_test: list[str],
    binaries: dict[str, Path],
    make_space: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """BIND, and a pebble that asks it."""
    skip_without("named")
    folder = tmp_path_factory.mktemp("bind")
    with make_space() as space:  # type: ignore[operator]
        servers = Bind(folder, space)
        with (
            servers.running(PRIMARY),
            servers.running(SECONDARY),
            asking(servers.names, binaries, folder / "pebble", space) as authority,
        ):
            yield Place(space, authority, under_test, servers)


@pytest.fixture
def knotted(
    under_test: list[str], binaries: dict[str, Path], make_space: object, tmp_path: Path
) -> Iterator[Place]:
    """Knot, and a pebble that asks it."""
    skip_without("knotd")
    with (
        make_space() as space,  # type: ignore[operator]
        knot(tmp_path / "knot", space) as names,
        asking(names, binaries, tmp_path / "pebble", space) as authority,
    ):
        yield Place(space, authority, under_test)


def by_update(folder: Path, *more: str, **key: str) -> list[str]:
    credentials = key_file(folder, **key)
    return ["-acme-dns", "rfc2136", "-acme-dns-credentials", str(credentials), *more]


def test_rfc2136_with_tsig(bind: Place, tmp_path: Path) -> None:
    """Names and a wildcard in one certificate; and the records are gone afterwards."""
    names = f"a.{ZONE},*.b.{ZONE},b.{ZONE}"
    relay = bind.relay(tmp_path, names, *by_update(tmp_path))
    with running(relay):
        bind.issued(relay, f"a.{ZONE}", f"b.{ZONE}", f"anything.b.{ZONE}")
        assert bind.shake(relay, f"c.{ZONE}").alert == "TLSV1_UNRECOGNIZED_NAME"
        until("no record is left", lambda: not bind.left(f"b.{ZONE}", (PRIMARY, SECONDARY)))
    assert (relay.certdir / f"a.{ZONE}").is_file()
    assert not (relay.certdir / JOURNAL).exists()
    assert SECRET not in relay.log


def test_rfc2136_at_knot(knotted: Place, tmp_path: Path) -> None:
    """Two names and a wildcard, and a wrong secret, which is named."""
    relay = knotted.relay(tmp_path, f"a.{ZONE},*.a.{ZONE}", *by_update(tmp_path))
    with running(relay):
        knotted.issued(relay, f"a.{ZONE}", f"anything.a.{ZONE}")
        until("no record is left", lambda: not knotted.left(f"a.{ZONE}"))
    (other := tmp_path / "other").mkdir()
    relay = knotted.relay(other, f"c.{ZONE}", *by_update(other, secret=WRONG_SECRET))
    with running(relay):
        relay.wait_for_log(rf"has another secret for the key {KEY_NAME}; correct RFC2136_TSIG_SECR")


def test_go_s_client_by_each_name(bind: Place, binaries: dict[str, Path], tmp_path: Path) -> None:
    """As derpmap prints the nodes: Go's clients meet at each of them, with several workers."""
    names = f"first.{ZONE},second.{ZONE}"
    flags = by_update(tmp_path, "-workers", "2")
    relay = bind.relay(tmp_path, names, *flags)
    root = tmp_path / "root.pem"
    with running(relay):
        bind.issued(relay, *names.split(","))
        root.write_text(bind.authority.root())
        printed = subprocess.run(
            [sys.executable, "-m", "derp", "derpmap", *relay.arguments()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        (region,) = json.loads(f"{{{printed}}}")["derpMap"]["Regions"].values()
        assert [node["HostName"] for node in region["Nodes"]] == names.split(",")
        for node in region["Nodes"]:
            at = {"IPv4": relay.host, "IPv6": "none", **node}
            talked = subprocess.run(
                [*bind.space.prefix, binaries["derpcheck"], "talk", "-node", json.dumps(at)],
                env=environment(SSL_CERT_FILE=str(root)),
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert json.loads(talked.stdout)["ok"], talked


def test_it_waits_for_the_last_name_server(bind: Place, tmp_path: Path) -> None:
    """The secondary gets no word of changes for a while; and says so where that takes too long."""
    assert bind.bind
    secondary = bind.bind.frozen()
    relay = bind.relay(tmp_path, f"late.{ZONE}", *by_update(tmp_path, "-acme-dns-wait", "5s"))
    asked = bind.authority.count("Attempting to validate")
    with running(relay):
        with secondary:
            relay.wait_for_log(rf"no certificate yet.*ns2\.{ZONE} .*did not show.*-acme-dns-wait")
            assert bind.authority.count("Attempting to validate") == asked
            assert not bind.left(f"late.{ZONE}")
        hang_up(relay)
        bind.issued(relay, f"late.{ZONE}")


def test_a_cname_leads_to_another_zone(bind: Place, tmp_path: Path) -> None:
    relay = bind.relay(tmp_path, f"led.{ZONE}", *by_update(tmp_path))
    with running(relay):
        bind.issued(relay, f"led.{ZONE}")
    assert bind.bind
    assert f"updating zone '{OTHER_ZONE}/IN'" in bind.bind.log(PRIMARY)


@pytest.mark.parametrize(
    ("key", "cure"),
    [
        ({"secret": WRONG_SECRET}, "RFC2136_TSIG_SECRET"),
        ({"name": "another-key"}, "RFC2136_TSIG_KEY"),
    ],
)
def test_a_wrong_key_is_named(bind: Place, tmp_path: Path, key: dict[str, str], cure: str) -> None:
    """And corrected without a restart."""
    relay = bind.relay(tmp_path, f"wrong.{ZONE}", *by_update(tmp_path, **key))
    with running(relay):
        line = relay.wait_for_log("no certificate yet.*")[0]
        assert cure in line
        key_file(tmp_path)
        hang_up(relay)
        bind.issued(relay, f"wrong.{ZONE}")
    assert WRONG_SECRET not in relay.log


def test_a_server_that_is_down(bind: Place, tmp_path: Path) -> None:
    variables = tmp_path / "variables"
    port = free_port()
    variables.write_text(
        f"RFC2136_TSIG_KEY={KEY_NAME}\nRFC2136_TSIG_SECRET={SECRET}\n"
        f"RFC2136_NAMESERVER=127.0.0.1:{port}\n"
    )
    variables.chmod(0o600)
    flags = ("-acme-dns", "rfc2136", "-acme-dns-credentials", str(variables))
    relay = bind.relay(tmp_path, f"down.{ZONE}", *flags)
    with running(relay):
        relay.wait_for_log(f"no certificate yet.*127.0.0.1, port {port}.*refused")
        again = rf"no certificate yet.*\n(.*\n)*.*no certificate yet.*{port}"
        relay.wait_for_log(again)


def test_records_of_an_order_that_was_cut_off_are_removed(bind: Place, tmp_path: Path) -> None:
    """At a stop at once; after a kill, at the next start."""
    assert bind.bind
    domain = f"cut.{ZONE}"
    relay = bind.relay(tmp_path, domain, *by_update(tmp_path))
    with bind.bind.frozen():
        with running(relay):
            until("the record is set", lambda: bind.left(domain))
        assert not bind.left(domain)
        assert not (relay.certdir / JOURNAL).exists()
        relay.start()
        until("the record is set", lambda: bind.left(domain))
        relay.kill()
        assert bind.left(domain)
        (entry,) = json.loads((relay.certdir / JOURNAL).read_text())
        assert entry["value"] == bind.left(domain)[0]
        assert (relay.certdir / JOURNAL).stat().st_mode & 0o777 == 0o600
    left = bind.left(domain)
    with running(relay):
        bind.issued(relay, domain)
        until("no record is left", lambda: not bind.left(domain))
    assert left
    assert not (relay.certdir / JOURNAL).exists()


@pytest.fixture
def powerdns(
    under_test: list[str], binaries: dict[str, Path], make_space: object, tmp_path: Path
) -> Iterator[Place]:
    """PowerDNS, which dns-lexicon changes by HTTP, and a pebble that asks it."""
    skip_without("pdns_server", "pdnsutil", "sqlite3")
    with (
        make_space() as space,  # type: ignore[operator]
        power_dns(tmp_path / "pdns", space) as names,
        asking(names, binaries, tmp_path / "pebble", space) as authority,
    ):
        yield Place(space, authority, under_test)


def test_dns_lexicon(powerdns: Place, tmp_path: Path) -> None:
    """A real provider, reached by dns-lexicon; first with a wrong key, then with the right one."""
    credentials = tmp_path / "credentials"
    credentials.touch(mode=0o600)

    def write(key: str, port: int = 8081) -> None:
        credentials.write_text(
            f"# PowerDNS\nLEXICON_POWERDNS_PDNS_SERVER=http://127.0.0.1:{port}\n"
            f"LEXICON_POWERDNS_AUTH_TOKEN='{key}'\n"
        )

    write("wrong-key-of-mine")
    flags = ("-acme-dns", "powerdns", "-acme-dns-credentials", str(credentials))
    relay = powerdns.relay(tmp_path, f"a.{ZONE},*.a.{ZONE}", *flags)
    with running(relay):
        relay.wait_for_log("no certificate yet.*HTTP status 401.*LEXICON_POWERDNS_AUTH_TOKEN")
        write(API_KEY, 8082)
        hang_up(relay)
        relay.wait_for_log("no certificate yet.*powerdns can't be reached .Connection refused")
        write(API_KEY)
        hang_up(relay)
        powerdns.issued(relay, f"a.{ZONE}", f"b.a.{ZONE}")
        until("no record is left", lambda: not powerdns.left(f"a.{ZONE}"))
    assert "wrong-key-of-mine" not in relay.log
    assert API_KEY not in relay.log


HOOK = """\
#!/bin/sh
# Sets a record at pebble's name server, and removes it, as a hook of certbot's does.
set -eu
count=$CERTBOT_REMAINING_CHALLENGES
echo "$1 $CERTBOT_DOMAIN $count $CERTBOT_ALL_DOMAINS ${CERTBOT_AUTH_OUTPUT-none}" >>"$CALLS"
[ -z "${CERTBOT_TOKEN+set}" ]
[ -z "${DERP_ACME_EAB_KEY+set}" ]
name=_acme-challenge.$CERTBOT_DOMAIN.
case $1 in
auth)
    what=set-txt
    echo "made for $CERTBOT_DOMAIN"
    ;;
cleanup) what=clear-txt ;;
esac
exec "$PYTHON" -c '
import json, sys, urllib.request
url, name, value = sys.argv[1:]
body = json.dumps({"host": name, "value": value}).encode()
urllib.request.urlopen(url, body, timeout=10).read()
' "http://127.0.0.1:$MANAGEMENT/$what" "$name" "$CERTBOT_VALIDATION" >&2
"""


@pytest.fixture
def fronted(
    under_test: list[str], binaries: dict[str, Path], make_space: object, tmp_path: Path
) -> Iterator[Place]:
    """Pebble's own name server, behind one that has zones."""
    with (
        make_space() as space,  # type: ignore[operator]
        name_server(binaries, tmp_path, space) as names,
        asking(names, binaries, tmp_path / "pebble", space) as authority,
    ):
        front = [*space.prefix, sys.executable, str(HERE / "dnsfront.py")]
        command = [*front, PRIMARY, ZONE, str(names.port)]
        with background(command, tmp_path / "front.log", environment()) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield Place(space, authority, under_test)


def test_a_hook_of_certbot_s(fronted: Place, tmp_path: Path) -> None:
    """Called to set and to remove, when it gets what it printed; with the machine's resolvers."""
    hook, calls = tmp_path / "hook", tmp_path / "calls"
    hook.write_text(HOOK)
    hook.chmod(0o755)
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {PRIMARY}\n")
    mounted = ["unshare", "--mount", "--", "sh", "-ec"]
    mounted += ['mount --bind "$0" /etc/resolv.conf; exec "$@"', str(resolv)]
    relay = fronted.relay(
        tmp_path,
        f"a.{ZONE},*.b.{ZONE}",
        *("-acme-dns-exec", str(hook), "-acme-dns-resolvers", ""),
        prefix=[*fronted.space.prefix, *mounted],
        env=environment(
            CALLS=str(calls),
            PYTHON=sys.executable,
            MANAGEMENT=str(fronted.authority.names.management),
            DERP_ACME_EAB_KEY="",
            CERTBOT_AUTH_OUTPUT="of another program",
        ),
    )
    with running(relay):
        fronted.issued(relay, f"a.{ZONE}", f"x.b.{ZONE}")
        until("no record is left", lambda: not fronted.left(f"a.{ZONE}"))
    lines = [line.split(" ", 4) for line in calls.read_text().splitlines()]
    assert [line[0] for line in lines] == ["auth", "auth", "cleanup", "cleanup"]
    assert {line[1] for line in lines} == {f"a.{ZONE}", f"b.{ZONE}"}
    assert [line[2] for line in lines] == ["1", "0", "1", "0"]
    assert all(set(line[3].split(",")) == {f"a.{ZONE}", f"b.{ZONE}"} for line in lines)
    assert [line[4] for line in lines[:2]] == ["none", "none"]
    assert [line[4] for line in lines[2:]] == [f"made for {line[1]}" for line in lines[2:]]


def test_a_hook_that_fails_and_one_that_hangs(fronted: Place, tmp_path: Path) -> None:
    hook, pid = tmp_path / "hook", tmp_path / "pid"
    hook.write_text("#!/bin/sh\n[ $1 = cleanup ] && exit\necho 'no such account' >&2\nexit 3\n")
    hook.chmod(0o755)
    relay = fronted.relay(
        tmp_path, f"a.{ZONE}", "-acme-dns-exec", str(hook), "-acme-dns-wait", "3s"
    )
    with running(relay):
        relay.wait_for_log(f"no certificate yet.*{hook}: auth for a.{ZONE} ended with status 3: ")
        assert re.search("ended with status 3: 'no such account'; run it by hand", relay.log)
        hang = f"sleep 3600 &\necho $$ $! >{pid}\nwait\n"
        hook.write_text(f"#!/bin/sh\n[ $1 = cleanup ] && exit\n{hang}")
        hang_up(relay)
        relay.wait_for_log(f"no certificate yet.*{hook}: auth for a.{ZONE} did not end within 3 s")
        assert not any(map(is_alive, pid.read_text().split()))


def is_alive(pid: str) -> bool:
    """Whether a process is there, and has not ended."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False
