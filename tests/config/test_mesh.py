"""-mesh-psk-file and -mesh-with, as flags and variables."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.config import Config, flag_table, goflags, strconv
from derp.config.field import ConfigError
from derp.config.mesh import KeyFile, MeshRelay, relay_list
from derp.errors import UsageError
from derp.net.listenaddress import Address
from tests.support.config import make_config

PLAIN = ("-a", ":8080", "-c", "/k")


def configure(*argv: str, environ: Mapping[str, str] | None = None) -> Config:
    environ = environ or {}
    parsed = goflags.parse(flag_table(environ, root=False), [*PLAIN, *argv], environ)
    return Config.from_settings(parsed.settings)


def usage_error(*argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        configure(*argv, environ=environ)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_without_any_of_it():
    config = configure()
    assert config.mesh.relays == ()
    assert config.mesh.key_file is KeyFile.AUTO


def test_the_key_file():
    assert configure("-mesh-psk-file", "/psk").mesh.key_file == Path("/psk")
    assert configure("-mesh-psk-file=").mesh.key_file is None
    assert configure(environ={"DERP_MESH_PSK_FILE": "/v"}).mesh.key_file == Path("/v")
    config = configure("-mesh-psk-file", "/psk", environ={"DERP_MESH_PSK_FILE": "/v"})
    assert config.mesh.key_file == Path("/psk")


def test_a_file_may_be_called_auto():
    assert configure("-mesh-psk-file", "auto").mesh.key_file is KeyFile.AUTO
    assert configure("-mesh-psk-file", "./auto").mesh.key_file == Path("auto")


@pytest.mark.parametrize(
    ("text", "relay"),
    [
        ("derp2.example.com", MeshRelay("derp2.example.com")),
        ("derp2", MeshRelay("derp2", 443, "")),
        ("derp2:8443", MeshRelay("derp2", 8443)),
        ("192.0.2.7", MeshRelay("192.0.2.7")),
        ("192.0.2.7:1", MeshRelay("192.0.2.7", 1)),
        ("[2001:db8::7]", MeshRelay("2001:db8::7")),
        ("[2001:db8::7]:65535", MeshRelay("2001:db8::7", 65535)),
        ("derp2/10.0.0.2", MeshRelay("derp2", 443, "10.0.0.2")),
        ("derp2:8443/inside.example", MeshRelay("derp2", 8443, "inside.example")),
        ("derp2/fd00::2", MeshRelay("derp2", 443, "fd00::2")),
        ("derp2/[fd00::2]", MeshRelay("derp2", 443, "fd00::2")),
        ("derp2/fe80::2%eth0", MeshRelay("derp2", 443, "fe80::2%eth0")),
        (" derp2 ", MeshRelay("derp2")),
        ("derp2:0443", MeshRelay("derp2", 443)),
    ],
)
def test_an_entry(text: str, relay: MeshRelay):
    config = configure("-mesh-with", text)
    assert config.mesh.relays == (relay,)
    assert relay_list(str(relay)) == (relay,)


def test_how_http_and_tls_name_a_relay():
    assert MeshRelay("derp2").authority == "derp2"
    assert MeshRelay("derp2", 8443, "x").authority == "derp2:8443"
    assert MeshRelay("::1").authority == "[::1]"
    assert MeshRelay("::1", 80).authority == "[::1]:80"


def test_a_list():
    a, b = MeshRelay("a"), MeshRelay("b", 8443, "c")
    assert configure("-mesh-with", "a, b:8443/c,a").mesh.relays == (a, b)
    assert configure(environ={"DERP_MESH_WITH": "a,b:8443/c"}).mesh.relays == (a, b)
    assert configure("-mesh-with=").mesh.relays == ()
    config = make_config(dev=True, a=Address("", 0), mesh_with=[a, b, a])  # type: ignore[arg-type]
    assert config.mesh.relays == (a, b)


FORM = "host, host:port, or either with /dialhost after it"
EMPTY = f"want no empty entry, but {FORM}, with one comma between two"


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b", " ", "a, ,b"])
def test_an_empty_entry(text: str):
    assert usage_error("-mesh-with", text) == f"-mesh-with {strconv.quoted(text)}: {EMPTY}"
    assert usage_error(DERP_MESH_WITH=text) == f"DERP_MESH_WITH={strconv.quoted(text)}: {EMPTY}"


@pytest.mark.parametrize("entry", ["a/b/c", "https://a", "a/b/", "//"])
def test_too_many_slashes(entry: str):
    want = f"want at most one slash in {entry}: {FORM}, without https://"
    assert usage_error("-mesh-with", f"x,{entry}") == f"-mesh-with x,{entry}: {want}"


@pytest.mark.parametrize(
    "entry", ["a:0", "a:65536", "a:", "a:https", "a:999999999999", "a:1:2", "a:-1", "a:٣", "[::1]:"]
)
def test_a_bad_port(entry: str):
    message = usage_error("-mesh-with", f"x,{entry}")
    shown = strconv.quoted(entry)
    assert message == f"-mesh-with x,{entry}: want a port from 1 to 65535 in {shown}"


@pytest.mark.parametrize(
    "entry",
    [
        *["/a", ":443", "a b", "-a", "a.", "1.2.3", "[a]", "[1.2.3.4]", "[::1", "]", "[]:1"],
        *["[::1]x", "[fe80::1%eth0]", "u@a", "bücher", "a?b", "a" * 300, "a\x1b[1m", "a\nb"],
    ],
)
def test_no_host(entry: str):
    shown = strconv.quoted(entry)
    want = f"want the name or the address of a relay in {shown}: {FORM}"
    assert usage_error("-mesh-with", entry) == f"-mesh-with {shown}: {want}"


def test_an_address_without_brackets():
    want = "want brackets around the address in fd00::2"
    assert usage_error("-mesh-with", "fd00::2") == f"-mesh-with fd00::2: {want}"


@pytest.mark.parametrize("side", ["", "b:443", "[b]", "[::1]:443", "1.2.3", "b c", "[", "bücher"])
def test_a_bad_host_to_connect_to(side: str):
    message = usage_error("-mesh-with", f"a/{side}")
    assert "want the name or the address to connect to after the slash in " in message
    assert message.endswith("without a port: that of the relay is used")


def test_other_relays_without_a_key():
    message = usage_error("-mesh-with", "a,b", "-mesh-psk-file=")
    assert message == "-mesh-with a,b: want -mesh-psk-file with it"
    # A variable may hold the key there.
    assert configure("-dev", "-mesh-with", "a", "-mesh-psk-file=").mesh.relays


def test_other_relays_without_relaying():
    message = usage_error("-mesh-with", "a", "-derp=false")
    assert message == "-mesh-with a: of no use with -derp=false; leave it out"
    with pytest.raises(ConfigError, match=r"^-mesh-with a: of no use "):
        make_config(dev=True, a=Address("", 0), derp=False, mesh_with=(MeshRelay("a"),))


@given(st.text("ab.:/[],% 10-", max_size=20))
def test_anything_is_a_list_or_says_what_would_be_one(text: str):
    try:
        found = relay_list(text)
    except ValueError as error:
        want = str(error)
    else:
        want = "want "
        assert relay_list(",".join(map(str, found))) == found
    assert want.startswith("want ")
