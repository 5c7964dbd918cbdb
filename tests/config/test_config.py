import math
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.dns01.options import DNSOptions, Resolver
from derp.config import Config, flag_table, goflags, strconv
from derp.config.field import ConfigError
from derp.config.memorysize import memory_size
from derp.errors import UsageError
from derp.http.bootstrap_dns import Name
from derp.net.listenaddress import Address
from tests.support import derperdocker
from tests.support.config import make_config

HOME = {"HOME": "/home/derp"}
PLAIN = ("-a", ":8080", "-c", "/k")
TLS = ("-certmode", "manual", "-hostname", "derp.example.com", "-c", "/k")


def configure(*argv: str, environ: Mapping[str, str] = HOME, root: bool = False) -> Config:
    parsed = goflags.parse(flag_table(environ, root=root), argv, environ)
    return Config.from_settings(parsed.settings)


def usage_error(*argv: str, root: bool = False, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        configure(*argv, environ=HOME | environ, root=root)
    return str(caught.value)


# --- defaults ---


def test_defaults_of_the_go_derper():
    assert configure("-certmode=manual", root=True) == make_config(
        dev=False,
        c=Path("/var/lib/derper/derper.key"),
        derp=True,
        a=Address("", 443),
        http_port=80,
        stun=True,
        stun_port=3478,
        stun_addr="",
        hostname="derp.tailscale.com",
        certmode="manual",
        certdir=Path("/home/derp/.cache/tailscale/derper-certs"),
        home="",
        bootstrap_dns_names=(),
        unpublished_bootstrap_dns_names=(),
        accept_connection_limit=math.inf,
        accept_connection_burst=2**63 - 1,
        rate_config=None,
        tcp_keepalive_time=600.0,
        tcp_user_timeout=15.0,
        tcp_write_timeout=2.0,
        tcp_congestion="",
    )


def test_every_field_can_be_left_out_in_code():
    config = make_config(dev=True, a=Address("127.0.0.1", 0))
    assert config.listening.http_port == 80
    assert config.general.key_file is None
    assert config.tls.mode == "letsencrypt"


def test_a_config_is_frozen_and_checked_in_code_too():
    config = make_config(dev=True, a=Address("", 0))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.stun.port = 1  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"^-stun-port 70000: want a port from 0 to 65535$"):
        make_config(dev=True, a=Address("", 0), stun_port=70000)
    with pytest.raises(ConfigError, match=r"^-c '': want the path of the key file; "):
        make_config(a=Address("", 0))
    with pytest.raises(ConfigError, match=r"^-stun-port 65536: "):
        attrs.evolve(config.stun, port=65536)


@pytest.mark.parametrize(
    ("environ", "certdir"),
    [
        ({"HOME": "/h"}, Path("/h/.cache/tailscale/derper-certs")),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, Path("/x/tailscale/derper-certs")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/tailscale/derper-certs")),
        ({"HOME": "/h", "XDG_CACHE_HOME": "x"}, None),
        ({}, None),
        ({"HOME": ""}, None),
    ],
)
def test_default_certdir(environ: dict[str, str], certdir: Path | None):
    assert configure(*PLAIN, environ=environ).tls.certdir == certdir
    if certdir is None:
        with pytest.raises(UsageError, match=r"^-certdir: want a directory for certificates$"):
            configure(*TLS, environ=environ)


def test_default_key_path():
    assert configure("-a", ":1", root=True).general.key_file == Path("/var/lib/derper/derper.key")
    assert configure("-a", ":1", "-c=", root=True).general.key_file == Path(
        "/var/lib/derper/derper.key"
    )
    assert configure("-a", ":1", "-c", "k", root=True).general.key_file == Path("k")
    want = "want the path of the key file; only root and -dev need none"
    assert usage_error("-a", ":1") == f"-c: {want}"
    assert usage_error("-a", ":1", "-c", "") == f"-c '': {want}"


def test_dev():
    for argv in (["-dev"], ["-dev", "-a", ":443", "-c", "/k"]):
        config = configure(*argv, environ={"DERP_ADDR": ":443"})
        assert config.general.dev
        assert config.listening.addresses == (Address("", 3340),)
        assert config.general.key_file is None
        assert not config.serve_tls
    assert configure("-dev", "-certmode=manual").serve_tls


# --- right values ---


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        (":443", "", 443, True),
        (":https", "", 443, True),
        ("127.0.0.1:443", "127.0.0.1", 443, True),
        ("[::]:443", "::", 443, True),
        (":http", "", 80, False),
        (":0", "", 0, False),
        (":65535", "", 65535, False),
        (":4430", "", 4430, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[2001:db8::1]:80", "2001:db8::1", 80, False),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, False),
        ("localhost:8080", "localhost", 8080, False),
        ("derp-1.example.com:8080", "derp-1.example.com", 8080, False),
    ],
)
def test_addresses(text: str, host: str, port: int, tls: bool):
    plain = ("-a", text, "-c", "/k", "-http-port=-1", "-certdir=/c")
    if tls:
        config = configure(*plain, "-hostname", "derp.example.com")
        assert (config.listening.addresses, config.serve_tls) == ((Address(host, port),), True)
    else:
        config = configure(*plain)
        assert (config.listening.addresses, config.serve_tls) == ((Address(host, port),), False)
        assert configure(*plain, "-certmode", "gcp").tls.mode == "gcp"
    config = configure(*plain, "-certmode", "manual")
    assert (config.listening.addresses, config.serve_tls) == ((Address(host, port),), True)


def test_addresses_in_text():
    assert str(Address("", 443)) == ":443"
    assert str(Address("127.0.0.1", 443)) == "127.0.0.1:443"
    assert str(Address("::1", 443)) == "[::1]:443"


@pytest.mark.parametrize(
    ("hostname", "is_ip"),
    [
        ("derp.example.com", False),
        ("localhost", False),
        ("xn--bcher-kva.example", False),
        ("DERP_1.Example", False),
        ("a" * 63 + ".b", False),
        (".".join(["a" * 49] * 5), False),
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.1", True),
    ],
)
def test_hostnames(hostname: str, is_ip: bool):
    config = configure(*TLS, "-hostname", hostname)
    assert (config.tls.hostname, config.tls.hostname_is_ip) == (hostname, is_ip)


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("a.example,b.example", ("a.example", "b.example"), "a.example"),
        (" b.example , A.example,a.EXAMPLE,b.example", ("b.example", "A.example"), "b.example"),
        ("*.a.example", ("*.a.example",), "derper.a.example"),
        ("*.a.example,a.example", ("*.a.example", "a.example"), "a.example"),
    ],
)
def test_several_hostnames(text: str, names: tuple[str, ...], first: str):
    tls = configure(*TLS, "-hostname", text).tls
    assert (tls.hostnames, tls.hostname, tls.hostname_is_ip) == (names, first, False)


def test_as_many_hostnames_as_a_certificate_can_have():
    many = [f"a{number}.example" for number in range(100)]
    assert configure(*TLS, "-hostname", ",".join(many)).tls.hostnames == tuple(many)


@pytest.mark.parametrize(
    "home", ["", "blank", "http://a", "https://example.com/x?y=z#f", "https://[::1]:8443/"]
)
def test_homes(home: str):
    assert configure(*PLAIN, "-home", home).pages.home == home


def test_bootstrap_names():
    config = configure(
        *PLAIN,
        "-bootstrap-dns-names=login.example.com, log.example.com",
        "-unpublished-bootstrap-dns-names=a.example/pct.example,b.example",
    )
    assert config.pages.bootstrap_dns_names == (Name("login.example.com"), Name("log.example.com"))
    assert config.pages.unpublished_bootstrap_dns_names == (
        Name("a.example", "pct.example"),
        Name("b.example"),
    )


def test_the_ends_of_the_ranges():
    low = configure(
        *PLAIN,
        *("-http-port", "-1", "-stun-port", "0", "-accept-connection-limit", "1e-9"),
        *("-tcp-keepalive-time", "0", "-tcp-user-timeout", "0s", "-tcp-write-timeout", "0"),
        *("-accept-connection-burst", "1", "-derp=0", "-stun=f"),
    )
    assert (low.listening.http_port, low.stun.port, low.limits.accept_burst) == (-1, 0, 1)
    assert (low.general.derp, low.stun.enabled, low.limits.accept_limit) == (False, False, 1e-9)
    assert (low.tcp.keepalive_time, low.tcp.user_timeout, low.tcp.write_timeout) == (0, 0, 0)
    high = configure(
        *PLAIN,
        *("-http-port", "65535", "-stun-port", "65535", "-accept-connection-limit", "1e300"),
        *("-tcp-keepalive-time", "9h6m7s", "-tcp-user-timeout", "596h31m23.647s"),
        *("-tcp-write-timeout", "2562047h", "-rate-config", "/r"),
    )
    assert (high.listening.http_port, high.stun.port, high.limits.rate_config) == (
        65535,
        65535,
        Path("/r"),
    )
    assert (high.tcp.keepalive_time, high.tcp.user_timeout) == (32767, 2147483.647)
    assert high.tcp.write_timeout == 2562047 * 3600
    assert configure(*PLAIN, "-accept-connection-burst", "0").limits.accept_burst == 0


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("08", 8), ("256", 256), ("auto", 0)])
def test_workers(text: str, count: int) -> None:
    assert configure(*PLAIN, "-workers", text).limits.workers == count
    assert configure(*PLAIN, environ=HOME | {"DERP_WORKERS": text}).limits.workers == count


def test_networks_of_proxies() -> None:
    text = "10.1.2.3/8, unix,192.0.2.7/32,2001:db8::/32,10.0.0.0/8,unix"
    expected = ("10.0.0.0/8", "unix", "192.0.2.7/32", "2001:db8::/32")
    for config in (
        configure(*PLAIN, "-trusted-proxies", text),
        configure(*PLAIN, environ=HOME | {"DERP_TRUSTED_PROXIES": text}),
    ):
        assert tuple(map(str, config.proxies.trusted)) == expected
        assert attrs.evolve(config).proxies == config.proxies
    for config in (
        configure(*PLAIN, "-proxy-protocol-from", text),
        configure(*PLAIN, environ=HOME | {"DERP_PROXY_PROTOCOL_FROM": text}),
    ):
        assert tuple(map(str, config.proxies.with_header)) == expected
        assert config.proxies.all == config.proxies.with_header
    assert configure(*PLAIN).proxies.all == ()


@pytest.mark.parametrize(
    "text",
    ["proxy", "10.0.0.0/33", "10.0.0.1", "[::1]/128", "fe80::1%eth0/64", "10.0.0.0/8 ::1/128"],
)
def test_what_is_no_network(text: str) -> None:
    for flag in ("-trusted-proxies", "-proxy-protocol-from"):
        assert usage_error(*PLAIN, flag, f"192.0.2.0/24,{text}").endswith(
            f": want a network such as 10.0.0.0/8 in place of {strconv.quoted(text)}"
        )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.7/0", "0.0.0.0/0"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_not_everybody_is_a_proxy(text: str, shown: str) -> None:
    for flag in ("-trusted-proxies", "-proxy-protocol-from"):
        assert usage_error(*PLAIN, flag, f"192.0.2.0/24,{text}").endswith(
            f": want the addresses of your proxies alone, such as 10.0.0.5/32, in place of "
            f"{shown}: all that connect from there are believed"
        )


def test_a_network_of_mapped_addresses_is_one_of_ipv4() -> None:
    config = configure(*PLAIN, "-trusted-proxies", "::ffff:10.0.0.5/128,::ffff:10.1.0.0/112,::/95")
    assert tuple(map(str, config.proxies.trusted)) == ("10.0.0.5/32", "10.1.0.0/16", "::/95")


def test_queue_memory() -> None:
    auto = configure(*PLAIN).limits.queue_memory
    assert auto == memory_size("auto")
    for text in ("64MiB", "10%", "0", "1048576", "auto"):
        size = memory_size(text)
        assert configure(*PLAIN, "-queue-memory", text).limits.queue_memory == size
        assert (
            configure(*PLAIN, environ=HOME | {"DERP_QUEUE_MEMORY": text}).limits.queue_memory
            == size
        )
    want = "want 1MiB or more, a share of the memory such as 10%, auto, or 0 for no bound"
    for text in (
        *("", "64", "1023KiB", "64MB", "64mib", "64 MiB", "1.5GiB", "0%", "101%", "-1", "10 %"),
        *("0x100000", "1e9", "auto%", "infinity", "\u0661MiB"),
    ):
        assert usage_error(*PLAIN, f"-queue-memory={text}").endswith(f": {want}")
    assert usage_error(*PLAIN, DERP_QUEUE_MEMORY="7") == f"DERP_QUEUE_MEMORY=7: {want}"


def test_variables():
    config = configure(
        "-c",
        "/k",
        environ={
            "DERP_DOMAIN": "derp.example.com",
            "DERP_CERT_DIR": "/app/certs",
            "DERP_CERT_MODE": "manual",
            "DERP_ADDR": "127.0.0.1:8443",
            "DERP_STUN": "false",
            "DERP_STUN_PORT": "1",
            "DERP_HTTP_PORT": "-1",
            "DERP_VERIFY_CLIENTS": "false",
            "DERP_VERIFY_CLIENT_URL": "",
        },
    )
    assert config == make_config(
        c=Path("/k"),
        hostname="derp.example.com",
        certdir=Path("/app/certs"),
        certmode="manual",
        a=Address("127.0.0.1", 8443),
        stun=False,
        stun_port=1,
        http_port=-1,
    )


@pytest.mark.parametrize(
    ("told", "host"),
    [
        ((), "192.0.2.1"),
        (("-stun-addr=",), "192.0.2.1"),
        (("-stun-addr", "*"), ""),
        (("-stun-addr", "0.0.0.0"), "0.0.0.0"),
        (("-stun-addr", "192.0.2.2"), "192.0.2.2"),
        (("-stun-addr", "2001:db8::2"), "2001:db8::2"),
        (("-stun-addr", "[2001:db8::2]"), "2001:db8::2"),
        (("-stun-addr", "fe80::2%eth0"), "fe80::2%eth0"),
        (("-stun-addr", "stun.example.com"), "stun.example.com"),
    ],
)
def test_stun_has_the_address_of_a_or_its_own(told: tuple[str, ...], host: str):
    (found,) = configure("-a", "192.0.2.1:8080", "-c", "/k", *told).stun_addresses
    assert found == Address(host, 3478)


def test_key_file_from_variable():
    by_variable = HOME | {"DERP_KEY_FILE": "/app/certs/derper+key", "DERP_ADDR": ":8080"}
    assert configure(environ=by_variable, root=True).general.key_file == Path(
        "/app/certs/derper+key"
    )
    assert configure(environ=by_variable).general.key_file == Path("/app/certs/derper+key")
    assert configure("-c", "/k", environ=by_variable).general.key_file == Path("/k")
    assert configure("-dev", environ=by_variable).general.key_file is None


def test_derper_docker():
    own = {"DERP_DOMAIN": "derp.example.com", "DERP_CERT_MODE": "manual"}
    by_variables = configure(environ=derperdocker.ENVIRONMENT | own, root=True)
    by_flags = configure(
        *("--hostname=derp.example.com", "--certmode=manual", "--certdir=/app/certs", "--a=:443"),
        *("--stun=true", "--stun-port=3478", "--http-port=80", "--verify-clients=false"),
        "--verify-client-url=",
        root=True,
    )
    assert by_variables == by_flags
    assert by_variables.serve_tls
    behind_a_proxy = configure(environ=derperdocker.ENVIRONMENT | {"DERP_ADDR": ":8080"}, root=True)
    assert not behind_a_proxy.serve_tls
    assert usage_error(root=True, **(derperdocker.ENVIRONMENT | {"DERP_CERT_MODE": "manual"})) == (
        "DERP_DOMAIN=your-hostname.com: that is a placeholder; "
        "want the DNS name or the IP address of this server"
    )


# --- wrong values ---

ADDRESS = "want :port, ip:port or [ip6]:port, with a port from 0 to 65535, or unix:/path"
STUN_ADDRESS = (
    "want an IP address or a name, with a port where it is not that of -stun-port, "
    "or * for all addresses"
)
INTERFACE = "want the name of a network interface of this machine, such as eth0"
MARK = "want a mark from 1 to 0xffffffff, or 0 for none"
HOSTNAME = "want DNS names in ASCII with commas between them, or an IP address without brackets"
ALONE = "an address stands alone; want names only, and addresses in -acme-ip-addresses"
HOME_PAGE = "want blank, hidden, or a URL that begins with http:// or https://"
NAMES = "want name or name/txt-name, with commas between them"
DIRECTORY = "want the URL of an ACME directory, which begins with https://"
EMAIL = "want one email address, such as ops@example.com"
ADDRESSES = "want IP addresses without brackets, with commas between them"
LIMIT = "want a number above 0, or +Inf for no limit"
KEEPALIVE = "want a duration from 0 to 9h6m7s"
USER_TIMEOUT = "want a duration from 0 to 596h31m23.647s"
CONGESTION = "want the name of a congestion control of this kernel, such as bbr"

WRONG = [
    ("a", ADDRESS, ["", "443", ":", "junk", ":65536", ":70000", ":-1", ":00", ":0443", ":1:2"]),
    ("a", ADDRESS, ["::1:443", "[::1]", "[::1]443", "[]:443", "[127.0.0.1]:443", "[x]:443"]),
    ("a", ADDRESS, ["256.0.0.1:80", "1.2.3:80", "*:80", "-a.b:80", ":ssh", "http://a:80", "a b:1"]),
    (
        "a",
        ADDRESS,
        [":80 ", ":٣", "bücher.example:80", ":99999999999999999999", "[::1]:80\n", "[::1%a b]:80"],
    ),
    ("http-port", "want a port from -1 to 65535", ["", "-2", "65536", "http", "80.0", ":80"]),
    ("stun-port", "want a port from 0 to 65535", ["", "-1", "65536", "0x10000", "stun"]),
    ("stun-addr", STUN_ADDRESS, [":x", "192.0.2.1:", "[::1]:70000", "::1]", "[a]", "a b"]),
    ("stun-addr", STUN_ADDRESS, ["1.2.3", "**", "*3478", "ipv5@*", "b\u00fccher.example"]),
    ("interface", INTERFACE, ["eth0 ", "e/0", "eth0:1", "a" * 16, ".", "eth\n"]),
    ("mesh-fwmark", MARK, ["-1", "0x100000000", "x", "", "1.5"]),
    ("certmode", "want manual, letsencrypt or gcp", ["", "Manual", "self-signed"]),
    ("hostname", HOSTNAME, ["", ".", "a..b", "a.", "-a.b", "a-.b", "a b", "[::1]", "1.2.3", "a:1"]),
    ("hostname", HOSTNAME, ["*", "bücher.example", "fe80::1%eth0", "https://a", "a/b"]),
    ("hostname", HOSTNAME, ["a.b,", ",a.b", "a.b,,c.d", "a.b;c.d", "*.", "**.a", "a.*.b", "*.1.2"]),
    ("hostname", ALONE, ["192.0.2.1,a.b", "a.b,192.0.2.1", "192.0.2.1,192.0.2.2", "a.b,::1"]),
    (
        "hostname",
        "want at most 100 names, which a certificate can have",
        [",".join(f"a{number}.example" for number in range(101))],
    ),
    ("hostname", HOSTNAME, ["a" * 64 + ".b", ".".join(["a" * 50] * 5), "a\n", "192.0.2.1:443"]),
    (
        "acme-directory",
        DIRECTORY,
        ["x", "http://a/dir", "https://", "https://a b", "https://a:0", "https://u:p@a"],
    ),
    ("acme-email", EMAIL, ["ops", "@a", "a@", "a@b,c@d", "a b@c", "mailto:a@b", "<a@b>", "a@b\n"]),
    (
        "acme-dns",
        "want rfc2136, or the name of a provider as dns-lexicon has it",
        ["Cloudflare", "a b", "a/b", "x" * 41, "b\u00fc", "a\n"],
    ),
    (
        "acme-dns-resolvers",
        "want IP addresses, each with or without a port, with commas between them",
        [",", "dns.example", "192.0.2.1,", ":53", "[::1]", "::1]:53", "192.0.2.1:x"],
    ),
    (
        "acme-dns-resolvers",
        "want IP addresses, each with or without a port, with commas between them",
        ["192.0.2.1:0", "[::1]:65536", "192.0.2.1:https", "[::1]:http", "[192.0.2.1]:53", ":::53"],
    ),
    ("acme-dns-wait", "want a duration of 1s or more", ["0s", "999ms", "-1s"]),
    ("acme-eab-kid", "want the key ID as the certificate authority gave it", ["a b", "ü", "a\n"]),
    ("acme-ip-addresses", ADDRESSES, [",", "192.0.2.1,", "[::1]", "fe80::1%eth0", "a.b", "1.2.3"]),
    ("home", HOME_PAGE, ["Blank", "example.com", "ftp://a", "http://", "https:///x", "HTTP://a"]),
    (
        "home",
        HOME_PAGE,
        ["http://a b", "http://a\r\nX: y", "http://[::1", "http://a:0", "http://ü"],
    ),
    ("home", HOME_PAGE, ["http://a:99999", " http://a", "http://:80"]),
    ("bootstrap-dns-names", NAMES, ["a b", "a,b c", "/a", "a/", "a/b/c", "http://a"]),
    ("unpublished-bootstrap-dns-names", NAMES, ["a b", "/a", "a/", "a/b c", "a/b/c"]),
    ("accept-connection-limit", LIMIT, ["", "0", "-1", "-Inf", "nan", "1e400", "ten", "0x10"]),
    ("per-network-accept-limit", "want a whole number, or 0 for no limit", ["-1"]),
    ("per-network-pending-limit", "want a whole number", ["", "1.5", "+Inf", "auto"]),
    *[
        ("trusted-proxies", f"want a network such as 10.0.0.0/8 in place of {shown}", [text])
        for text, shown in (
            ("proxy", "proxy"),
            ("::1/128,10.0.0.0/33", "10.0.0.0/33"),
            ("10.0.0.1", "10.0.0.1"),
            ("fe80::1%eth0/64", "fe80::1%eth0/64"),
            ("10.0.0.0/8 ::1/128", "'10.0.0.0/8 ::1/128'"),
        )
    ],
    (
        "workers",
        "want a number from 1 to 256, or auto for one per core",
        ["0", "-1", "257", "1000", "2.0", "two", "Auto", "+2", " 2", "\N{ARABIC-INDIC DIGIT TWO}"],
    ),
    ("accept-connection-burst", "want a whole number, 0 or more", ["-1"]),
    ("accept-connection-burst", "want a whole number", ["", "1.5", "+Inf", "1e3"]),
    ("accept-connection-burst", "want a whole number of 64 bits", ["9223372036854775808"]),
    ("verify-again", "want 0 for never, or at least 100ms", ["1ns", "99ms", "-1s"]),
    (
        "verify-client-file",
        "want a file with node keys; leave the flag out to have no list",
        [""],
    ),
    ("policy", "want a policy file in TOML; leave the flag out to have none", [""]),
    ("tcp-keepalive-time", KEEPALIVE, ["-1s", "9h6m7.001s", "10h"]),
    ("tcp-user-timeout", USER_TIMEOUT, ["-1ns", "596h31m24s"]),
    ("tcp-write-timeout", "want a duration from 0 to 292 years", ["-2s"]),
    ("tcp-congestion", CONGESTION, [" ", "bbr ", "a/b", "bbr\0x", "bbr\n", "b\xe4r", "a" * 16]),
    ("tcp-write-timeout", "want a duration, such as 2s, 1h10m or 300ms", ["", "two"]),
    ("tcp-write-timeout", "want a duration with its unit, such as 2s", ["2"]),
    ("tcp-keepalive-time", "want a duration in h, m, s, ms, us or ns, such as 1h10m", ["1d"]),
    *[(name, "want true or false", ["", "yes"]) for name in ("dev", "version", "stun", "derp")],
    *[(name, "want true or false", ["yes"]) for name in ("verify-clients", "ace", "acme-ip-certs")],
]


@pytest.mark.parametrize(
    ("name", "want", "text"), [(name, want, text) for name, want, texts in WRONG for text in texts]
)
def test_wrong_flags(name: str, want: str, text: str):
    others = PLAIN if name != "a" else ("-c", "/k")
    assert usage_error(*others, f"-{name}={text}") == f"-{name}={strconv.quoted(text)}: {want}"
    if name not in {"dev", "version", "stun", "derp", "verify-clients", "ace", "acme-ip-certs"}:
        given = f"--{name} {strconv.quoted(text)}"
        assert usage_error(*others, f"--{name}", text) == f"{given}: {want}"


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("hostname", "DERP_DOMAIN"),
        ("certmode", "DERP_CERT_MODE"),
        ("a", "DERP_ADDR"),
        ("stun", "DERP_STUN"),
        ("stun-port", "DERP_STUN_PORT"),
        ("stun-addr", "DERP_STUN_ADDR"),
        ("interface", "DERP_INTERFACE"),
        ("mesh-fwmark", "DERP_MESH_FWMARK"),
        ("http-port", "DERP_HTTP_PORT"),
        ("verify-clients", "DERP_VERIFY_CLIENTS"),
        ("tcp-congestion", "DERP_TCP_CONGESTION"),
    ],
)
def test_wrong_variables(name: str, variable: str):
    wrong = [(want, text) for n, want, texts in WRONG if n == name for text in texts if text]
    for want, text in wrong:
        message = usage_error("-c", "/k", **({"DERP_ADDR": ":8080"} | {variable: text}))
        assert message == f"{variable}={strconv.quoted(text)}: {want}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((*TLS, "-certdir="), "-certdir='': want a directory for certificates"),
        (
            (*TLS, "-hostname", "your-hostname.com"),
            (
                "-hostname your-hostname.com: that is a placeholder; "
                "want the DNS name or the IP address of this server"
            ),
        ),
        (
            (*TLS, "-http-port", "443"),
            "-http-port 443: the port of -a; want another one, or -1 for none",
        ),
        (
            (*TLS, "-a", ":80"),
            "-http-port 80 (the default): the port of -a; want another one, or -1 for none",
        ),
        (
            (*PLAIN, "-accept-connection-burst=0", "-accept-connection-limit=5"),
            (
                "-accept-connection-burst=0: with -accept-connection-limit "
                "nothing would be accepted; want 1 or more"
            ),
        ),
    ],
)
def test_values_that_do_not_go_together(argv: tuple[str, ...], message: str):
    assert usage_error(*argv) == message


def test_values_that_do_go_together():
    assert configure(*TLS, "-a", ":0", "-http-port", "0").listening.http_port == 0
    assert configure(*PLAIN, "-http-port", "8080").listening.http_port == 8080
    assert configure(*PLAIN, "-hostname", "your-hostname.com").tls.hostname == "your-hostname.com"
    assert configure(*PLAIN, "-certdir=").tls.certdir is None


# --- certificates ---

BY_DNS = ("-hostname", "derp.example.com", "-c", "/k", "-a", ":8443")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (("-acme-dns", "cloudflare"), DNSOptions(provider="cloudflare", wait=300.0)),
        (
            ("-acme-dns=rfc2136", "-acme-dns-credentials=/f", "-acme-dns-wait=1m"),
            DNSOptions(provider="rfc2136", credentials=Path("/f"), wait=60.0),
        ),
        (
            ("-acme-dns-exec=/h", "-acme-dns-exec-cleanup=/i", "-acme-dns-credentials=/f"),
            DNSOptions(
                program=Path("/h"), cleanup_program=Path("/i"), credentials=Path("/f"), wait=300.0
            ),
        ),
        (
            ("-acme-dns=a", "-acme-dns-resolvers", "192.0.2.1, [::1]:5353,::1,192.0.2.1:54"),
            DNSOptions(
                provider="a",
                resolvers=(
                    *(Resolver("192.0.2.1"), Resolver("::1", 5353)),
                    *(Resolver("::1"), Resolver("192.0.2.1", 54)),
                ),
                wait=300.0,
            ),
        ),
    ],
)
def test_dns_challenges_serve_https_on_any_port(argv: tuple[str, ...], options: DNSOptions):
    config = configure(*BY_DNS, *argv)
    assert config.dns.options == options
    assert (config.serve_tls, config.serve_acme) == (True, True)


def test_without_dns_challenges():
    config = configure(*BY_DNS, "-acme-dns-wait=1m", "-acme-dns-resolvers=::1")
    assert config.dns.options is None
    assert not config.serve_tls


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            (*BY_DNS, "-acme-dns=a", "-acme-dns-exec=/h"),
            "-acme-dns-exec=/h: want it or -acme-dns, not both",
        ),
        (
            (*BY_DNS, "-a=:443", "-acme-dns-exec-cleanup=/h"),
            "-acme-dns-exec-cleanup=/h: want -acme-dns-exec with it",
        ),
        (
            (*BY_DNS, "-a=:443", "-acme-dns-credentials=/f"),
            "-acme-dns-credentials=/f: want -acme-dns or -acme-dns-exec with it",
        ),
        (
            (*TLS, "-acme-dns=a"),
            "-acme-dns=a: of no use with -certmode manual; want letsencrypt there",
        ),
        (
            (*BY_DNS, "-hostname=8.8.8.8", "-acme-ip-certs", "-acme-dns-exec=/h"),
            "-acme-dns-exec=/h: DNS says nothing of an address; want a name as -hostname",
        ),
        (
            (*BY_DNS, "-a=:443", "-hostname=a.example,*.b.example"),
            (
                "-hostname=a.example,*.b.example: "
                "a wildcard is validated by DNS only; want -acme-dns or -acme-dns-exec with it"
            ),
        ),
    ],
)
def test_dns_challenges_that_can_t_be(argv: tuple[str, ...], message: str):
    assert usage_error(*argv) == message


@pytest.mark.parametrize(
    "argv",
    [
        (*BY_DNS, "-hostname=*.b.example", "-acme-dns=a"),
        (*BY_DNS, "-acme-ip-certs", "-acme-ip-addresses=8.8.8.8", "-acme-dns=a"),
        (*TLS, "-hostname=*.b.example"),
        (*BY_DNS, "-hostname=*.b.example"),
    ],
)
def test_wildcards_and_addresses_that_can_be(argv: tuple[str, ...]):
    configure(*argv)


ACME = ("-hostname", "derp.example.com", "-c", "/k")
OWN_CA = ("-acme-directory", "https://ca.example/dir")
EAB = ("-acme-eab-kid", "kid-1", "-acme-eab-key", "c2VjcmV0")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("-c", "/k"),
            (
                "-hostname derp.tailscale.com (the default): that is Tailscale's own; "
                "want the DNS name of this server"
            ),
        ),
        ((*ACME, "-certdir="), "-certdir='': want a directory for certificates"),
        (
            (*ACME, "-hostname", "203.0.113.1"),
            (
                "-hostname 203.0.113.1: an IP address; want -certmode manual for a self-signed "
                "certificate, or -acme-ip-certs for one from Let's Encrypt"
            ),
        ),
        (
            (*ACME, *OWN_CA, *EAB, "-certmode=gcp", "-acme-email=a@b", "-hostname=8.8.8.8"),
            (
                "-hostname=8.8.8.8: an IP address; "
                "want -certmode manual for a self-signed certificate"
            ),
        ),
        (
            (*ACME, "-hostname", "10.0.0.1", "-acme-ip-certs"),
            (
                "-hostname 10.0.0.1: Let's Encrypt certifies public addresses only; "
                "want one, or -certmode manual"
            ),
        ),
        (
            (*ACME, "-acme-ip-certs", "-acme-ip-addresses", "8.8.8.8, fd00::1"),
            (
                "-acme-ip-addresses '8.8.8.8, fd00::1': Let's Encrypt certifies public addresses "
                "only; want one, or -certmode manual"
            ),
        ),
        (
            (*ACME, "-acme-ip-addresses", "8.8.8.8"),
            "-acme-ip-addresses 8.8.8.8: want -acme-ip-certs with it",
        ),
        (
            (*TLS, "-acme-ip-certs"),
            "-acme-ip-certs: want -certmode letsencrypt with it",
        ),
        (
            (*TLS, *OWN_CA),
            (
                "-acme-directory https://ca.example/dir: "
                "of no use with -certmode manual; want letsencrypt there"
            ),
        ),
        (
            (*TLS, "-acme-ca-bundle=/ca.pem"),
            ("-acme-ca-bundle=/ca.pem: of no use with -certmode manual; want letsencrypt there"),
        ),
        (
            (*ACME, "-certmode=gcp", *EAB),
            "-acme-email: -certmode gcp needs this flag",
        ),
        (
            (*ACME, "-certmode=gcp", "-acme-email=a@b", "-acme-eab-kid=x"),
            "-acme-eab-key: -certmode gcp needs this flag",
        ),
        (
            (*ACME, *OWN_CA, "-acme-eab-kid=x"),
            "-acme-eab-key: -acme-eab-kid and -acme-eab-key go together; want both",
        ),
        (
            (*ACME, *OWN_CA, "-acme-eab-key=c2VjcmV0"),
            "-acme-eab-kid: -acme-eab-kid and -acme-eab-key go together; want both",
        ),
        (
            (*ACME, *EAB),
            (
                "-acme-eab-kid kid-1: Let's Encrypt takes none; "
                "want -certmode gcp, or the server's -acme-directory"
            ),
        ),
        (
            (*TLS, "-tls-cert", "/c"),
            "-tls-key: -tls-cert and -tls-key go together; want this one, too",
        ),
        (
            (*TLS, "-tls-key", "/c"),
            "-tls-cert: -tls-cert and -tls-key go together; want this one, too",
        ),
        (
            (*ACME, "-tls-cert", "/c", "-tls-key", "/k"),
            "-tls-cert /c: want -certmode manual with it",
        ),
    ],
)
def test_certificates_that_cant_be_had(argv: tuple[str, ...], message: str):
    assert usage_error(*argv) == message


@pytest.mark.parametrize(
    "argv",
    [
        ACME,
        (*ACME, "-acme-email", "ops@example.com"),
        (*ACME, "-acme-ip-certs"),
        (*ACME, "-acme-ip-certs", "-acme-ip-addresses", "8.8.8.8,2606:4700::1"),
        (*ACME, "-hostname", "8.8.8.8", "-acme-ip-certs"),
        (*ACME, *OWN_CA, "-hostname", "127.0.0.1", "-acme-ip-certs"),
        (*ACME, *OWN_CA, "-acme-ip-certs", "-acme-ip-addresses", "10.0.0.1"),
        (*ACME, *OWN_CA, *EAB, "-acme-ca-bundle", "/ca.pem"),
        (*ACME, "-certmode", "gcp", *EAB, "-acme-email", "ops@example.com"),
        (*ACME, *OWN_CA, "-a", ":8443"),
    ],
)
def test_certificates_that_can_be_had(argv: tuple[str, ...]):
    config = configure(*argv)
    assert config.serve_tls
    assert config.serve_acme


def test_what_the_go_derper_ignores_beside_http_and_manual_is_ignored():
    for argv in (PLAIN, TLS):
        assert not configure(*argv, "-acme-eab-kid=x", "-acme-email=a@b").serve_acme


def test_a_pair_of_the_operators_own_needs_no_directory():
    config = configure(*TLS, "-certdir=", "-tls-cert", "/a.pem", "-tls-key", "/a.pem")
    assert (config.tls.certificate, config.tls.key) == (Path("/a.pem"), Path("/a.pem"))


@pytest.mark.parametrize("text", ["-_8A", "+/8A", "+/8A==", "-_8A="])
def test_an_external_account_key_in_either_base64(text: str):
    assert configure(*PLAIN, f"-acme-eab-key={text}").acme.eab_key == b"\xfb\xff\x00"


@pytest.mark.parametrize("text", ["s3cret key", "s3cret!", "s3cre", "sü"])
def test_a_secret_is_in_no_message(text: str):
    message = usage_error(*PLAIN, f"-acme-eab-key={text}")
    want = "want the HMAC key in base64, as the certificate authority gave it"
    assert message == f"-acme-eab-key: {want}"
    with pytest.raises(ConfigError) as caught:
        make_config(dev=True, acme_eab_key=text)
    assert text not in str(caught.value)
    assert usage_error(*PLAIN, DERP_ACME_EAB_KEY=text) == f"DERP_ACME_EAB_KEY: {want}"


def test_a_secret_is_in_no_repr():
    config = configure(*ACME, *OWN_CA, *EAB)
    assert config.acme.eab_key == b"secret"
    assert "b'secret'" not in repr(config)


# --- flags of the Go derper that are not supported yet ---

REFUSED = {
    "secrets-url": "https://s3cret",
    "secrets-path-prefix": "x",
    "secrets-cache-dir": "/x",
    "ace": "true",
}
HARMLESS = [
    *[
        "secrets-url=",
        "secrets-path-prefix=prod/derp",
        "ace=f",
    ],
    *[
        "secrets-cache-dir=/home/derp/.cache/derper-secrets",
    ],
]


@pytest.mark.parametrize(("name", "text"), REFUSED.items())
def test_refused_by_name(name: str, text: str):
    message = usage_error(*PLAIN, f"--{name}={text}")
    assert message.startswith(f"--{name}: ")
    assert "not supported" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("argument", HARMLESS)
def test_defaults_of_refused_flags_are_harmless(argument: str):
    assert configure(*PLAIN, f"-{argument}") == configure(*PLAIN)


# --- who may use the relay ---

URL = "https://headscale.example/verify"


def test_without_any_flag_everybody_may():
    config = configure(*PLAIN, "-verify-clients=false", "-verify-client-url=", "-socket=")
    assert config == configure(*PLAIN)
    assert not config.verification.enabled
    assert config.verification.tailscaled_sockets == (Path("/var/run/tailscale/tailscaled.sock"),)


@pytest.mark.parametrize(
    ("name", "text"),
    [("VERIFY_CLIENTS", "1"), ("VERIFY_CLIENT_URL", URL), ("VERIFY_CLIENT_FILE", "/etc/nodes")],
)
def test_each_way_to_check_clients(name: str, text: str):
    flag = name.lower().replace("_", "-")
    assert configure(*PLAIN, f"-{flag}={text}").verification.enabled
    config = configure(*PLAIN, environ=HOME | {f"DERP_{name}": text})
    assert config == configure(*PLAIN, f"-{flag}={text}")


def test_several_tailscaleds():
    """A path with a space, or with a comma in a name, is one, as in the Go derper."""
    two = (Path("/run/one/tailscaled.sock"), Path("/run/the other/a,b.sock"))
    for argv in (
        ("-socket", str(two[0]), "-socket", str(two[1])),
        (f"-socket={two[0]},{two[1]}",),
        ("-socket", str(two[0]), f"-socket={two[0]},{two[1]}"),
    ):
        assert configure(*PLAIN, *argv).verification.tailscaled_sockets == two
    environ = HOME | {"DERP_SOCKET": f"{two[0]},{two[1]}"}
    assert configure(*PLAIN, environ=environ).verification.tailscaled_sockets == two
    relative = configure(*PLAIN, "-socket", "a b,c.sock").verification.tailscaled_sockets
    assert relative == (Path("a b,c.sock"),)


def test_all_required_takes_something_to_require():
    config = configure(*PLAIN, "-verify-all", "-verify-clients")
    assert config.verification.require_all
    assert usage_error(*PLAIN, "-verify-all", DERP_POLICY_FILE="/p") == (
        "-verify-all: want what has to admit clients, such as -verify-clients, with it"
    )


def test_isolation_takes_something_that_tells_clients_apart():
    assert configure(*PLAIN, "-isolate", "-verify-clients").verification.isolate
    assert configure(*PLAIN, "-isolate", "-policy=/p").verification.isolate
    assert usage_error(*PLAIN, DERP_ISOLATE="true") == (
        "DERP_ISOLATE=true: want what admits clients, such as -verify-clients, or -policy, with it"
    )


def test_several_urls():
    two = ("https://a.example/verify", "http://b.example:8080/verify")
    config = configure(*PLAIN, "-verify-client-url", two[0], f"-verify-client-url={two[1]}")
    assert config.verification.urls == two
    environ = HOME | {"DERP_VERIFY_CLIENT_URL": " ".join(two)}
    assert configure(*PLAIN, environ=environ) == config
    environ = HOME | {"DERP_VERIFY_CLIENT_URL": "https://c.example/verify"}
    again = ("-verify-client-url", two[0], "-verify-client-url", two[1])
    assert configure(*PLAIN, *again, environ=environ) == config
    assert configure(*PLAIN, *again, *again) == config


def test_failing_open_is_the_default_as_in_the_go_derper():
    assert configure(*PLAIN).verification.fail_open
    assert not configure(*PLAIN, "-verify-client-url-fail-open=false").verification.fail_open


@pytest.mark.parametrize(
    "text", ["headscale/verify", "ftp://a", "https://", f"{URL} x", "http://ü"]
)
def test_a_wrong_url_is_told_without_what_may_be_secret_in_it(text: str):
    want = "want a URL that begins with http:// or https://"
    assert usage_error(*PLAIN, "-verify-client-url", text) == f"-verify-client-url: {want}"


@pytest.mark.parametrize("text", ["s3cret\r\nX: y", "s3crét", " s3cret", "s3cret\t"])
def test_an_authorization_is_a_header_and_in_no_message(text: str):
    message = usage_error(
        *PLAIN, "-verify-client-url", URL, f"-verify-client-url-authorization={text}"
    )
    want = "want the value of a header, in ASCII and without spaces around it"
    assert message == f"-verify-client-url-authorization: {want}"
    config = configure(
        *PLAIN, "-verify-client-url", URL, "-verify-client-url-authorization=Bearer s3cret"
    )
    assert config.verification.url_authorization == "Bearer s3cret"
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("flag", "want"),
    [
        ("authorization", "-verify-client-url"),
        ("ca-bundle", "-verify-client-url, -verify-tailnet or -verify-headscale"),
    ],
)
def test_what_goes_with_a_url_goes_with_a_url(flag: str, want: str):
    message = usage_error(*PLAIN, "-verify-clients", f"-verify-client-url-{flag}=x")
    assert message.startswith(f"-verify-client-url-{flag}")
    assert message.endswith(f": want {want} with it")


def test_every_flag_is_known():
    names = {flag.name for flag in flag_table(HOME, root=True)}
    served = {
        *{"dev", "version", "a", "http-port", "stun", "stun-port", "stun-addr", "c"},
        *{"certmode", "certdir"},
        *{"tls-cert", "tls-key", "acme-email", "acme-directory", "acme-ca-bundle"},
        *{"verify-clients", "verify-client-url", "verify-client-url-fail-open", "socket"},
        *{"verify-client-url-ca-bundle", "verify-client-url-authorization"},
        *{"verify-client-file", "verify-remember", "verify-again", "policy", "tell-refused"},
        *{"verify-all", "isolate"},
        *{"verify-tailnet", "verify-tailnet-tags", "verify-tailnet-keep", "verify-tailnet-api"},
        *{"tailnet-client-id", "tailnet-client-secret", "tailnet-client-secret-file"},
        *{"tailnet-api-key", "tailnet-api-key-file"},
        *{"verify-headscale", "headscale-api-key", "headscale-api-key-file"},
        *{"acme-eab-kid", "acme-eab-key", "acme-ip-certs", "acme-ip-addresses"},
        *{"acme-dns", "acme-dns-credentials", "acme-dns-exec", "acme-dns-exec-cleanup"},
        *{"acme-dns-resolvers", "acme-dns-wait"},
        *{"hostname", "derp", "home", "bootstrap-dns-names", "unpublished-bootstrap-dns-names"},
        *{"accept-connection-limit", "accept-connection-burst", "rate-config"},
        *{"per-network-accept-limit", "per-network-pending-limit"},
        *{"trusted-proxies", "proxy-protocol-from"},
        *{"workers", "drain-time", "queue-memory", "poller"},
        *{"mesh-psk-file", "mesh-with", "accounts"},
        *{"debug-allow-ip", "debug-trusted-cidrs", "debug-key-file", "admin-token-file"},
        *{"metrics-addr", "metrics-per-key", "control-socket"},
        *{"tcp-keepalive-time", "tcp-user-timeout", "tcp-write-timeout"},
        *{"tcp-congestion", "interface", "mesh-fwmark"},
    }
    assert names == served | set(REFUSED)


# --- anything at all ---

NAMES_OF_FLAGS = [flag.name for flag in flag_table(HOME, root=True)]
VARIABLES = [flag.variable for flag in flag_table(HOME, root=True) if flag.variable]
texts = st.text() | st.sampled_from(
    ["true", "manual", ":443", "[::1]:80", "1h", "2", "0", "-1", "a/b", "1.2.3.4", "http://a", "x,"]
)
arguments = st.lists(
    st.builds("-{}={}".format, st.sampled_from(NAMES_OF_FLAGS), texts)
    | st.sampled_from([f"-{name}" for name in NAMES_OF_FLAGS])
    | texts
)


@given(arguments, st.dictionaries(st.sampled_from([*VARIABLES, "HOME"]), texts), st.booleans())
def test_anything_is_a_config_or_a_usage_error(
    argv: list[str], environ: dict[str, str], root: bool
):
    outcome = config_or_error(argv, environ, root)
    if isinstance(outcome, UsageError):
        assert str(outcome).isprintable()
        assert len(str(outcome)) < 400
    else:
        assert outcome.general.dev or outcome.general.key_file is not None
        assert not outcome.serve_tls or outcome.tls.certdir or outcome.tls.certificate
        assert not outcome.serve_acme or outcome.tls.certdir


def config_or_error(argv: list[str], environ: dict[str, str], root: bool) -> Config | UsageError:
    try:
        return configure(*argv, environ=environ, root=root)
    except UsageError as error:
        return error
