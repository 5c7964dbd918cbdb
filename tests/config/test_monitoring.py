"""Where monitors are served: right and wrong addresses."""

from functools import partial
from pathlib import Path

import pytest

from derp.config import Config, flag_table, goflags
from derp.config.checks import MAX_KEYS
from derp.config.monitoring import Monitoring
from derp.errors import UsageError
from derp.net.listenaddress import Address, ListenAddress, UnixSocket
from tests.support.config import make_config

ENVIRON = {"HOME": "/h"}
TLS = ("-a", ":443", "-hostname", "derp.example", "-certmode", "manual")
config = partial(make_config, dev=True, a=Address("127.0.0.1", 3340))


def configure(*argv: str, **environ: str) -> Config:
    found = goflags.parse(flag_table(ENVIRON, root=True), argv, ENVIRON | environ)
    return Config.from_settings(found.settings)


def monitoring(*argv: str, **environ: str) -> Monitoring:
    return configure("-a", ":8080", *argv, **environ).monitoring


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ()),
        (":9100", (Address("", 9100),)),
        ("127.0.0.1:0", (Address("127.0.0.1", 0),)),
        ("[::1]:9100", (Address("::1", 9100),)),
        ("localhost:9100", (Address("localhost", 9100),)),
        ("unix:/run/derper/metrics", (UnixSocket(Path("/run/derper/metrics")),)),
        ("127.0.0.1:1,unix:/m", (Address("127.0.0.1", 1), UnixSocket(Path("/m")))),
    ],
)
def test_addresses(text: str, address: tuple[ListenAddress, ...]) -> None:
    assert monitoring("-metrics-addr", text).addresses == address
    assert monitoring(DERP_METRICS_ADDR=text).addresses == address


def test_values_from_code() -> None:
    assert config().monitoring == Monitoring()
    made = config(metrics_addr=UnixSocket(Path("/m")), metrics_per_key=5).monitoring
    assert (made.addresses, made.max_keys) == ((UnixSocket(Path("/m")),), 5)
    assert config(metrics_addr=Address("", 1)).monitoring.addresses == (Address("", 1),)


HOST_PORT = "want :port, ip:port or [ip6]:port, with a port from 0 to 65535, or unix:/path"
UNIX = "want unix: and an absolute path of at most 107 bytes"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("9100", HOST_PORT),
        ("127.0.0.1", HOST_PORT),
        (":65536", HOST_PORT),
        ("/run/metrics", HOST_PORT),
        ("unix:", UNIX),
        ("unix:metrics", UNIX),
        ("unix:/" + "x" * 107, UNIX),
    ],
)
def test_wrong_addresses_are_one_line(text: str, want: str) -> None:
    with pytest.raises(UsageError) as caught:
        monitoring("-metrics-addr", text)
    assert "-metrics-addr" in str(caught.value)
    assert str(caught.value).endswith(want)


@pytest.mark.parametrize(
    ("flags", "port_of"),
    [
        (("-metrics-addr", ":443", *TLS), "-a"),
        (("-metrics-addr", "127.0.0.1:443", *TLS), "-a"),
        (("-metrics-addr", ":80", *TLS), "-http-port"),
        (("-metrics-addr", ":8080", "-a", "127.0.0.1:8080"), "-a"),
        (("-metrics-addr", "127.0.0.1:8080", "-a", "127.0.0.1:8080"), "-a"),
        (("-metrics-addr", ":1,[::1]:8080", "-a", "127.0.0.1:9,ipv6@:8080"), "-a"),
    ],
)
def test_another_listeners_port_is_refused(flags: tuple[str, ...], port_of: str) -> None:
    with pytest.raises(UsageError, match=f"the port of {port_of}; want another one"):
        configure(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ("-metrics-addr", "127.0.0.2:8080", "-a", "127.0.0.1:8080"),
        ("-metrics-addr", "[::1]:8080", "-a", "ipv4@:8080"),
        ("-metrics-addr", "127.0.0.1:0", "-a", "127.0.0.1:0"),
        ("-metrics-addr", ":80", "-a", ":8080"),
        ("-metrics-addr", ":80", "-http-port", "-1", *TLS),
    ],
)
def test_no_other_port_is(flags: tuple[str, ...]) -> None:
    configure(*flags)


def test_the_number_of_keys_is_bounded() -> None:
    assert monitoring("-metrics-per-key", "1000").max_keys == MAX_KEYS
    assert monitoring(DERP_METRICS_PER_KEY="3").max_keys == 3
    for wrong in ("-1", "1001", "x"):
        with pytest.raises(UsageError, match="want a number of keys from 0 to 1000"):
            monitoring("-metrics-per-key", wrong)
