import ipaddress
from pathlib import Path

import pytest

from derp.config import Config, flag_table
from derp.config.goflags import parse
from derp.errors import UsageError


def configure(*argv: str, **environ: str) -> Config:
    arguments = ["-c", "/k", "-a", ":8080", *argv]
    return Config.from_settings(parse(flag_table({}, root=False), arguments, environ).settings)


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ipaddress.ip_network, texts))


def test_nobody_by_default() -> None:
    config = configure()
    assert config.debug.addresses == ()
    assert config.debug.networks == ()
    assert config.debug.key_file is None


@pytest.mark.parametrize("names", ["ours", "Tailscale's"])
def test_variables(names: str) -> None:
    given = {
        "DERP_DEBUG_ALLOW_IP": "192.0.2.1",
        "DERP_DEBUG_TRUSTED_CIDRS": "10.0.0.0/8, fd00::/8",
        "DERP_DEBUG_KEY_FILE": "/run/key",
    }
    if names == "Tailscale's":
        keys = ("TS_ALLOW_DEBUG_IP", "TS_DEBUG_TRUSTED_CIDRS", "TS_DEBUG_KEY_PATH")
        given = dict(zip(keys, given.values(), strict=True))
    config = configure(**given)
    assert config.debug.addresses == (ipaddress.ip_address("192.0.2.1"),)
    assert config.debug.networks == networks("10.0.0.0/8", "fd00::/8")
    assert config.debug.key_file == Path("/run/key")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        ("10.0.0.1/32,10.0.0.1/32", ["10.0.0.1/32"]),
        (" ,10.0.0.0/8,, ::1/128 ,", ["10.0.0.0/8", "::1/128"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
    ],
)
def test_networks(text: str, wanted: list[str]) -> None:
    """As tsweb's parseTrustedCIDRs takes them."""
    assert configure("-debug-trusted-cidrs", text).debug.networks == networks(*wanted)


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "10/8", "fd00::/129"),
        *("fe80::%eth0/64", "::1/-1", "localhost/8", "10.0.0.0 /8"),
    ],
)
def test_wrong_networks(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(TS_DEBUG_TRUSTED_CIDRS=f"192.0.2.0/24,{text}")
    assert str(caught.value).startswith("TS_DEBUG_TRUSTED_CIDRS=")
    assert "want a network such as 10.0.0.0/8 in place of" in str(caught.value)


def test_wrong_address() -> None:
    with pytest.raises(UsageError, match="TS_ALLOW_DEBUG_IP=me: want IP"):
        configure(TS_ALLOW_DEBUG_IP="me")
