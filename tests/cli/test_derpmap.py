"""`derper derpmap`: the entry, and what --check says of a relay that runs."""

import hashlib
import json
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme

from certs.files import PairFiles
from certs.selfsigned import write_self_signed
from derp.cli import derpmap
from derp.config import flag_table
from tests.process import Derper, derper

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]


def node(out: str) -> dict[str, object]:
    (region,) = json.loads(f"{{{out}}}")["derpMap"]["Regions"].values()
    (found,) = region["Nodes"]
    assert isinstance(found, dict)
    return found


def flags(relay: Derper, home: Path) -> list[str]:
    found = ["-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", str(relay.port("STUN"))]
    found += ["-certmode", "manual", "-certdir", str(home / "certs")]
    return [*found, "-hostname", "127.0.0.1"]


def pin(file: Path) -> str:
    return f"sha256-raw:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).hexdigest()}"


def vouched_for(home: Path, name: str) -> tuple[trustme.CA, tuple[str, ...]]:
    """Write a certificate that an authority has issued; return both, the latter as flags."""
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(home / "chain.pem")
    issued.private_key_pem.write_to_path(home / "key.pem")
    (home / "key.pem").chmod(0o600)
    own = ("-tls-cert", str(home / "chain.pem"), "-tls-key", str(home / "key.pem"))
    return authority, ("-hostname", name, *own)


def test_a_domain(run: Run):
    code, out, err = run("derpmap", "-hostname", "derp.example.com")
    assert (code, err) == (0, "")
    assert out.startswith('"derpMap": {\n  "Regions": {\n    "900": {\n')
    assert node(out) == {"Name": "900a", "RegionID": 900, "HostName": "derp.example.com"}


def test_several_domains(run: Run):
    code, out, err = run("derpmap", "-hostname", "a.example,b.example", "--format", "yaml")
    assert (code, err) == (0, "")
    assert out.count("      - name: ") == 2
    assert '      - name: "900b"\n        regionid: 900\n        hostname: "b.example"\n' in out


def test_a_wildcard_alone_is_no_entry(run: Run):
    code, out, err = run("derpmap", "-hostname", "*.a.example", "-certmode", "manual")
    assert (code, out) == (2, "")
    assert err.startswith("derper: -hostname *.a.example: a DERP map takes no wildcard; want the ")


def test_a_bool_as_two_words(run: Run):
    code, out, err = run("derpmap", "-stun", "false", "-hostname", "derp.example.com")
    assert (code, node(out)["STUNPort"]) == (0, -1)
    assert err == (
        "derper: -stun false: read as -stun=false, which is how to write it; "
        "the Go derper reads -stun alone, as true, and ignores the flags after it, "
        "which count here\n"
    )


def test_a_region_of_the_operators_own(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DERP_DOMAIN", "derp.example.com")
    own = ("--region-id", "905", "--region-code", "fra", "--region-name", "Frankfurt am Main")
    code, out, _ = run("derpmap", *own, "--format", "yaml", "-stun-port", "3479")
    assert code == 0
    assert out == (
        "regions:\n"
        "  905:\n"
        "    regionid: 905\n"
        '    regioncode: "fra"\n'
        '    regionname: "Frankfurt am Main"\n'
        "    nodes:\n"
        '      - name: "905a"\n'
        "        regionid: 905\n"
        '        hostname: "derp.example.com"\n'
        "        stunport: 3479\n"
    )


def test_http_is_for_a_proxy(run: Run):
    code, out, err = run("derpmap", "-hostname", "derp.example.com", "-a", "127.0.0.1:8080")
    assert code == 0
    assert "DERPPort" not in node(out)
    assert err == (
        "derper: -a 127.0.0.1:8080 is HTTP, and clients want HTTPS: "
        "the entry is for a proxy that serves it on port 443\n"
    )

    code, out, err = run(
        *("derpmap", "-hostname", "derp.example.com", "-a", "127.0.0.1:8080"),
        *("--public-derp-port", "8443"),
    )
    assert code == 0
    assert node(out)["DERPPort"] == 8443
    assert err.endswith(": the entry is for a proxy that serves it on port 8443\n")


@pytest.mark.parametrize(
    ("argv", "ports"),
    [
        (("--public-derp-port", "8443"), {"DERPPort": 8443}),
        (("--public-stun-port", "13478"), {"STUNPort": 13478}),
        (
            ("-a", ":8443", "--public-derp-port=443", "-stun-port=5", "--public-stun-port=3478"),
            {},
        ),
        (
            ("-a=:0", "--public-derp-port=443", "-stun-port=0", "--public-stun-port=0x100"),
            {"STUNPort": 256},
        ),
    ],
)
def test_ports_that_are_published_under_other_numbers(
    tmp_path: Path, run: Run, argv: tuple[str, ...], ports: dict[str, int]
):
    _, own = vouched_for(tmp_path, "derp.example.com")
    code, out, err = run("derpmap", "-certmode", "manual", *own, *argv)
    assert (code, err) == (0, "")
    found = {name: value for name, value in node(out).items() if name.endswith("Port")}
    assert found == ports


def test_the_pin_is_read_and_never_made(tmp_path: Path, run: Run):
    manual = ("-certmode", "manual", "-certdir", str(tmp_path / "certs"))
    asked = ("derpmap", "-hostname", "192.0.2.7", *manual)
    file = tmp_path / "certs" / "192.0.2.7.crt"
    code, out, err = run(*asked)
    assert (code, out) == (1, "")
    assert err.startswith(f"derper: {file}: no such file, and so no pin; start the relay, ")
    assert not (tmp_path / "certs").exists()
    files = PairFiles(file, file.with_suffix(".key"))
    write_self_signed(files, ip_address("192.0.2.7"), datetime.now(UTC))
    # To the relay's user, who is maybe not this one, this is to be told: by the relay.
    file.parent.chmod(0o777)
    code, out, err = run(*asked)
    assert (code, err) == (0, "")
    assert node(out)["CertName"] == pin(file)
    assert node(out)["IPv4"] == "192.0.2.7"
    files.key.unlink()
    code, out, err = run(*asked)
    assert (code, out) == (1, "")
    assert err.startswith(f"derper: {files.key}: ")


def test_a_pin_that_has_expired(tmp_path: Path, run: Run):
    file = tmp_path / "192.0.2.7.crt"
    then = datetime(2020, 1, 1, tzinfo=UTC)
    write_self_signed(PairFiles(file, file.with_suffix(".key")), ip_address("192.0.2.7"), then)
    before = file.read_bytes()
    asked = ("-hostname", "192.0.2.7", "-certmode", "manual", "-certdir", str(tmp_path))
    code, out, err = run("derpmap", *asked)
    assert code == 0
    assert node(out)["CertName"] == pin(file)
    assert err.startswith(f"derper: {file}: the certificate expired on 20")
    assert file.read_bytes() == before


def test_what_an_authority_vouches_for_is_not_pinned(tmp_path: Path, run: Run):
    _, own = vouched_for(tmp_path, "derp.example.com")
    code, out, _ = run("derpmap", "-certmode", "manual", *own)
    assert code == 0
    assert "CertName" not in node(out)
    _, own = vouched_for(tmp_path, "192.0.2.7")
    code, out, err = run("derpmap", "-certmode", "manual", *own)
    assert code == 0
    assert "CertName" not in node(out)
    assert err.startswith("derper: the certificate for 192.0.2.7 comes without intermediates: ")
    assert err.endswith(f" CertName {pin(tmp_path / 'chain.pem')}\n")


def test_addresses_by_acme_are_not_pinned(tmp_path: Path, run: Run):
    own = ("-hostname", "8.8.8.8", "-acme-ip-certs", "-certdir", str(tmp_path))
    code, out, _ = run("derpmap", *own)
    assert code == 0
    assert node(out) == {"Name": "900a", "RegionID": 900, "HostName": "8.8.8.8", "IPv4": "8.8.8.8"}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("--format", "toml"), "--format toml: want json or yaml"),
        (("--format=",), "--format='': want json or yaml"),
        (("--region-id", "899"), "--region-id 899: want 900 to 999, "),
        (("--region-id", "x"), "--region-id x: want a whole number"),
        (("--region-code", "a b"), "--region-code 'a b': want a short name"),
        (("--region-name", ""), "--region-name '': want a name such as"),
        (("--check=maybe",), "--check=maybe: want true or false"),
        (("--regoin-id", "900"), "--regoin-id: no such flag; did you mean -region-id?"),
        (("-a", ":0", "-certmode", "manual"), "-a :0: any free port"),
        (("-derp=false", "-stun=false"), "-derp=false -stun=false: want DERP or STUN"),
        (("-hostname", "a b"), "-hostname 'a b': want DNS names"),
        (("--public-derp-port", "0"), "--public-derp-port 0: want a port from 1 to 65535"),
        (("--public-derp-port", "65536"), "--public-derp-port 65536: want a port from 1 to"),
        (("--public-derp-port=",), "--public-derp-port='': want a port from 1 to 65535"),
        (("--public-derp-port",), "--public-derp-port: nothing comes after it; want a port from"),
        (("--public-derp-port", "8443:443"), "--public-derp-port 8443:443: want a port from 1"),
        (("--public-stun-port=-1",), "--public-stun-port=-1: want a port from 1 to 65535"),
        (("--public-stun-port", "1e3"), "--public-stun-port 1e3: want a port from 1 to 65535"),
        (("--derp-port", "8443"), "--derp-port: no such flag; did you mean -public-derp-port?"),
        (
            ("-derp=false", "--public-derp-port", "8443"),
            "--public-derp-port 8443: -derp=false serves nothing there; want ",
        ),
        (
            ("-stun=false", "--public-stun-port", "3479"),
            "--public-stun-port 3479: -stun=false serves nothing there; want ",
        ),
        (("-dev", "-hostname", "derp.tailscale.com"), "-hostname derp.tailscale.com: want the"),
        (("-secrets-url", "x"), "-secrets-url: setec"),
    ],
)
def test_wrong_flags(run: Run, argv: tuple[str, ...], line: str):
    code, out, err = run("derpmap", "-hostname", "derp.example.com", *argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"derper: {line}")
    assert err.count("\n") == 1


def test_a_name_has_to_be_given(run: Run):
    code, out, err = run("derpmap")
    assert (code, out) == (2, "")
    assert err.startswith("derper: -hostname derp.tailscale.com (the default): ")


def test_help(run: Run):
    code, out, err = run("derpmap", "-h")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: derper derpmap [flags]\n")
    assert max(map(len, out.splitlines())) <= 80
    for flag in derpmap._OWN:
        assert f"\n  -{flag.name}" in out
    assert "-public-derp-port PORT   (default that of -a)\n" in out


def test_its_flags_are_not_those_of_the_relay():
    of_the_relay = {flag.name for flag in flag_table({}, root=True)}
    assert not of_the_relay & {flag.name for flag in derpmap._OWN}


def test_checked_with_a_pin(tmp_path: Path, run: Run):
    with derper(tmp_path) as relay:
        code, out, err = run("derpmap", "--check", *flags(relay, tmp_path))
        assert (code, err) == (0, "")
        assert node(out)["CertName"] == pin(tmp_path / "certs" / "127.0.0.1.crt")
        relay.stop()
        assert not any("refused" in line for line in relay.log)
        code, again, err = run("derpmap", "--check", *flags(relay, tmp_path))
    assert (code, again) == (1, out)
    assert err.startswith("derper: TCP 127.0.0.1:")
    assert ": connection refused; start the relay, and open TCP " in err
    assert err.count("\n") == 1


PRINTED = r'^  (\{"Name":"900a","RegionID":900,"HostName":"127\.0\.0\.1",[^ ]*\})$'
"""Compact, as Go writes it: scripts look for `"CertName":"sha256-raw:`."""


@pytest.mark.parametrize("more", [(), ("-derp=false",)])
def test_the_relay_prints_the_same_node(tmp_path: Path, run: Run, more: tuple[str, ...]):
    with derper(tmp_path, *more) as relay:
        printed = json.loads(relay.wait_for(PRINTED)[1])
        assert relay.log[-2] == "Put this node into your DERP map:"
        asked = flags(relay, tmp_path)
        code, out, _ = run("derpmap", *asked, *more)
    assert code == 0
    assert printed == node(out)
    assert printed["Name"] == "900a"
    assert printed["IPv4"] == "127.0.0.1"


def test_the_relay_prints_no_pin_of_what_an_authority_has_issued(tmp_path: Path):
    _, own = vouched_for(tmp_path, "127.0.0.1")
    with derper(tmp_path, *own) as relay:
        printed = json.loads(relay.wait_for(r'^  (\{"Name":.*\})$')[1])
        relay.wait_for("level=warning .*certificate for 127.0.0.1 comes without intermediates")
    assert "CertName" not in printed


def test_the_relay_prints_two_nodes_where_stun_is_elsewhere(tmp_path: Path, run: Run):
    with derper(tmp_path, "-stun-addr", "127.0.0.2") as relay:
        stun = json.loads(relay.wait_for(r'^  (\{"Name":"900b".*\})$')[1])
        derp = json.loads(relay.wait_for(r'^  (\{"Name":"900a".*\})$')[1])
        told = ["-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", str(stun["STUNPort"])]
        told += ["-certmode", "manual", "-certdir", str(tmp_path / "certs")]
        told += ["-hostname", "127.0.0.1", "-stun-addr", "127.0.0.2"]
        code, out, err = run("derpmap", *told, "--check")
        assert (code, err) == (0, "")
        relay.stop()
        assert "127.0.0.2" in run("derpmap", *told, "--check")[2]
    assert (stun["IPv4"], stun["STUNOnly"], derp["STUNPort"]) == ("127.0.0.2", True, -1)
    (region,) = json.loads(f"{{{out}}}")["derpMap"]["Regions"].values()
    assert region["Nodes"] == [stun, derp]


def test_the_relay_prints_that_there_is_no_stun(tmp_path: Path):
    with derper(tmp_path, "-stun=false") as relay:
        assert json.loads(relay.wait_for(PRINTED)[1])["STUNPort"] == -1


def test_the_relay_prints_no_node_for_what_clients_have_no_use_for(tmp_path: Path):
    with derper(tmp_path, "-derp=false", "-stun=false") as relay:
        relay.port("HTTP")
        assert relay.stop() == 0
    assert not any("DERP map" in line for line in relay.log)


def test_another_certificate_than_that_of_the_files(tmp_path: Path, run: Run):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with derper(tmp_path / "a") as relay, derper(tmp_path / "b") as other:
        other.port("HTTPS")
        code, _, err = run("derpmap", "--check", *flags(relay, tmp_path / "b"))
    assert code == 1
    served, wanted = (pin(tmp_path / name / "certs" / "127.0.0.1.crt") for name in "ab")
    assert err.startswith(
        f"derper: the relay serves the certificate {served}, not that of the files, {wanted}; "
    )
    assert err.count("\n") == 1


@pytest.fixture
def only_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """On some machines `localhost` is ::1, too, where the relay of these tests is not."""
    look_up = socket.getaddrinfo

    def ipv4(*asked: Any) -> list[Any]:
        return [found for found in look_up(*asked) if found[0] == socket.AF_INET]

    monkeypatch.setattr(socket, "getaddrinfo", ipv4)


@pytest.mark.usefixtures("only_ipv4")
def test_checked_with_an_authority(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    authority, own = vouched_for(tmp_path, "localhost")
    with derper(tmp_path, *own) as relay:
        asked = ("derpmap", "--check", *flags(relay, tmp_path), *own)
        code, _, err = run(*asked)
        assert code == 1
        assert err.startswith("derper: clients refuse the certificate (unable to get local issuer")
        assert err.count("\n") == 1
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        code, out, err = run(*asked)
        assert (code, err) == (0, "")
        assert "CertName" not in node(out)


def test_checked_where_ports_are_published(tmp_path: Path, run: Run):
    """What the relay calls its ports leads nowhere; what clients call them does."""
    (tmp_path / "other").mkdir()
    nothing = ("-derp=false", "-stun=false")
    with derper(tmp_path) as relay, derper(tmp_path / "other", *nothing) as other:
        inside = ["-a", f"127.0.0.1:{other.port('HTTPS')}", "-stun-port", "1"]
        inside += ["-certmode", "manual", "-certdir", str(tmp_path / "certs")]
        inside += ["-hostname", "127.0.0.1"]
        outside = ["--public-derp-port", str(relay.port("HTTPS"))]
        outside += ["--public-stun-port", str(relay.port("STUN"))]
        assert run("derpmap", "--check", *inside)[0] == 1
        code, out, err = run("derpmap", "--check", *inside, *outside)
    assert (code, err) == (0, "")
    assert node(out)["DERPPort"] == relay.port("HTTPS")
    assert node(out)["STUNPort"] == relay.port("STUN")


@pytest.mark.usefixtures("only_ipv4")
def test_all_that_is_wrong_is_told(tmp_path: Path, run: Run):
    _, own = vouched_for(tmp_path, "localhost")
    with derper(tmp_path, *own, "-derp=false") as relay:
        asked = [*flags(relay, tmp_path), *own, "-stun-port", str(relay.port("HTTPS"))]
        code, _, err = run("derpmap", "--check", *asked)
    lines = err.splitlines()
    assert code == 1
    assert "clients refuse the certificate" in lines[0]
    assert "refuses the upgrade to DERP: HTTP/1.1 404 Not Found; a proxy" in lines[1]
    assert "UDP 127.0.0.1:" in lines[2]
    assert "and open UDP" in lines[2]
    assert len(lines) == 3


def test_stun_only(tmp_path: Path, run: Run):
    with derper(tmp_path, "-derp=false") as relay:
        asked = flags(relay, tmp_path)
        code, out, err = run("derpmap", "--check", "-derp=false", *asked)
    assert (code, err) == (0, "")
    assert node(out)["STUNOnly"] is True
    assert "CertName" not in node(out)
