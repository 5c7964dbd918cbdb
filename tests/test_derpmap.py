import json
import re
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from certs.files import PairFiles, read_pair
from certs.pair import Pair
from certs.selfsigned import write_self_signed
from derp.config import Config
from derp.derpmap import (
    Node,
    as_json,
    as_yaml,
    chain_warning,
    make_node,
    make_region,
    pin_for,
    region_code,
    region_id,
    region_name,
)
from derp.errors import UsageError
from derp.net.listenaddress import Address
from tests.support.config import make_config

DOMAIN = Node("derp.example.com", None, 443, 3478)
PIN = f"sha256-raw:{'ab' * 32}"


def config(**fields: Any) -> Config:
    return make_config(c="/k", certdir="/c", **{"hostname": "derp.example.com", **fields})


def test_a_node_that_is_as_usual_says_no_more_than_its_name():
    assert DOMAIN.fields(900) == {
        "Name": "900a",
        "RegionID": 900,
        "HostName": "derp.example.com",
    }


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"derp_port": 8443}, {"DERPPort": 8443}),
        ({"derp_port": None}, {"STUNOnly": True}),
        ({"stun_port": 3479}, {"STUNPort": 3479}),
        ({"stun_port": None}, {"STUNPort": -1}),
        ({"pin": PIN}, {"CertName": PIN}),
        ({"hostname": "192.0.2.7"}, {"HostName": "192.0.2.7", "IPv4": "192.0.2.7"}),
        ({"hostname": "2001:DB8::7"}, {"HostName": "2001:DB8::7", "IPv6": "2001:db8::7"}),
        ({"hostname": "::ffff:192.0.2.7"}, {"HostName": "::ffff:192.0.2.7", "IPv4": "192.0.2.7"}),
    ],
)
def test_a_node_says_what_is_not_as_usual(changes: dict[str, Any], more: dict[str, Any]):
    node = attrs.evolve(DOMAIN, **changes)
    assert node.fields(901) == {**DOMAIN.fields(901), **more}


@pytest.mark.parametrize(
    ("fields", "node"),
    [
        ({}, DOMAIN),
        (
            {"a": Address("", 8443), "certmode": "manual"},
            attrs.evolve(DOMAIN, derp_port=8443),
        ),
        # HTTP: a proxy before it serves HTTPS.
        ({"a": Address("", 8080)}, DOMAIN),
        ({"stun_port": 3479}, attrs.evolve(DOMAIN, stun_port=3479)),
        ({"stun": False, "stun_port": 0}, attrs.evolve(DOMAIN, stun_port=None)),
        ({"derp": False}, attrs.evolve(DOMAIN, derp_port=None)),
    ],
)
def test_a_node_is_made_of_the_configuration(fields: dict[str, Any], node: Node):
    assert make_node(config(**fields), None) == node


@pytest.mark.parametrize("port", [0, 443, 8443])
def test_clients_may_find_it_at_other_ports_than_it_knows(port: int):
    own = config(a=Address("", port), certmode="manual", stun_port=port)
    node = make_node(own, None, derp_port=9443, stun_port=9478)
    assert node == attrs.evolve(DOMAIN, derp_port=9443, stun_port=9478)


def test_each_name_is_a_node_of_its_own():
    node = make_node(config(hostname="a.example,*.a.example,b.example", acme_dns="rfc2136"), PIN)
    assert node.hostnames == ("a.example", "b.example")
    first, second = node.nodes(901)
    assert first == {"Name": "901a", "RegionID": 901, "HostName": "a.example", "CertName": PIN}
    assert second == {**first, "Name": "901b", "HostName": "b.example"}
    names = [fields["Name"] for fields in attrs.evolve(DOMAIN, more_hostnames=("x",) * 99).nodes()]
    assert len(set(names)) == 100
    assert (names[25], names[26], names[99]) == ("900z", "900ba", "900dv")


def test_stun_elsewhere_is_one_node_for_all_names():
    node = attrs.evolve(
        DOMAIN, more_hostnames=("b.example",), stun_address=ip_address("192.0.2.8"), pin=PIN
    )
    stun, first, second = node.nodes()
    assert (stun["Name"], stun["IPv4"], stun["STUNOnly"]) == ("900c", "192.0.2.8", True)
    assert "CertName" not in stun
    assert (first["STUNPort"], second["STUNPort"]) == (-1, -1)


def test_a_wildcard_alone_is_no_node():
    with pytest.raises(UsageError) as caught:
        make_node(config(hostname="*.a.example", certmode="manual"), None)
    assert str(caught.value) == (
        "-hostname *.a.example: a DERP map takes no wildcard; "
        "want the name for clients before it, with a comma between them"
    )


def test_a_port_elsewhere_makes_no_service():
    own = {"derp_port": 9443, "stun_port": 9478}
    assert make_node(config(derp=False), None, **own).derp_port is None
    assert make_node(config(stun=False), None, **own).stun_port is None


def test_who_relays_nothing_is_not_pinned():
    assert make_node(config(), PIN).pin == PIN
    assert make_node(config(derp=False), PIN).pin is None


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"a": Address("", 0), "certmode": "manual"}, "-a :0: any free port; want "),
        ({"stun_port": 0}, "-stun-port 0: any free port; want "),
        ({"derp": False, "stun": False}, "-derp=false -stun=false: want DERP or STUN"),
    ],
)
def test_there_is_no_entry_for_what_can_t_be_found(fields: dict[str, Any], start: str):
    with pytest.raises(UsageError, match=f"^{re.escape(start)}"):
        make_node(config(**fields), None)


ADDRESS = config(hostname="192.0.2.7", certmode="manual")


def self_signed(folder: Path) -> Pair:
    files = PairFiles(folder / "crt", folder / "key")
    now = datetime.now(UTC)
    write_self_signed(files, ip_address("192.0.2.7"), now)
    return read_pair(files, ["192.0.2.7"], now)


def vouched_for(folder: Path, name: str) -> Pair:
    issued = trustme.CA().issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(folder / "crt")
    issued.private_key_pem.write_to_path(folder / "key")
    (folder / "key").chmod(0o600)
    return read_pair(PairFiles(folder / "crt", folder / "key"), [name], datetime.now(UTC))


def test_what_is_self_signed_is_pinned(tmp_path: Path):
    pair = self_signed(tmp_path)
    assert pin_for(pair) == pair.pin


def test_what_an_authority_has_issued_for_an_address_is_not_pinned(tmp_path: Path):
    # Its next one would lock everybody out. Without intermediates clients may refuse it, too.
    pair = vouched_for(tmp_path, "192.0.2.7")
    assert pin_for(pair) is None
    warning = chain_warning(ADDRESS, pair)
    assert warning is not None
    assert warning.startswith("the certificate for 192.0.2.7 comes without intermediates: ")
    assert warning.endswith(f" CertName {pair.pin}")


def test_a_chain_is_missed_only_where_there_may_be_one(tmp_path: Path):
    alone = vouched_for(tmp_path, "192.0.2.7")
    chain = attrs.evolve(alone, chain_der=alone.chain_der * 2)
    assert chain_warning(ADDRESS, chain) is None
    assert chain_warning(ADDRESS, self_signed(tmp_path)) is None
    assert chain_warning(config(), vouched_for(tmp_path, "derp.example.com")) is None


def test_a_name_that_an_authority_vouches_for_is_not_pinned(tmp_path: Path):
    assert pin_for(vouched_for(tmp_path, "derp.example.com")) is None


def test_a_second_certificate_can_t_be_pinned(tmp_path: Path):
    pair = self_signed(tmp_path)
    assert pin_for(attrs.evolve(pair, chain_der=pair.chain_der * 2)) is None


STUN_ELSEWHERE = attrs.evolve(DOMAIN, derp_port=8443, stun_address=ip_address("8.8.4.4"))


def test_stun_on_an_address_of_its_own_is_a_node_of_its_own():
    # The first one, as clients ask that one first, and some that one only (makeProbePlan).
    stun, derp = STUN_ELSEWHERE.nodes(901)
    assert stun == {
        "Name": "901b",
        "RegionID": 901,
        "HostName": "derp.example.com",
        "IPv4": "8.8.4.4",
        "IPv6": "none",
        "STUNOnly": True,
        "DERPPort": 8443,
    }
    assert derp == {**attrs.evolve(DOMAIN, derp_port=8443).fields(901), "STUNPort": -1}
    (region,) = [make_region(901, "fra", "Frankfurt", STUN_ELSEWHERE)]
    assert region["Nodes"] == [stun, derp]


def test_stun_by_ipv6_at_another_port():
    address = ip_address("2606:4700::1")
    node = attrs.evolve(DOMAIN, stun_port=3479, stun_address=address)
    stun, _ = node.nodes(900)
    assert stun["STUNPort"] == 3479
    assert (stun["IPv4"], stun["IPv6"]) == ("none", "2606:4700::1")


def test_where_there_is_only_stun_its_node_is_the_only_one():
    (stun,) = attrs.evolve(STUN_ELSEWHERE, derp_port=None).nodes(900)
    assert (stun["IPv4"], stun["STUNOnly"]) == ("8.8.4.4", True)
    assert "DERPPort" not in stun


def test_a_node_is_usually_the_only_one():
    assert DOMAIN.nodes(900) == [DOMAIN.fields(900)]


@pytest.mark.parametrize(
    ("hostname", "host", "stun_addr", "found"),
    [
        ("derp.example.com", "", "8.8.4.4", "8.8.4.4"),
        ("8.8.8.8", "8.8.8.8", "8.8.4.4", "8.8.4.4"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"),
        # That of -a, or of all.
        ("derp.example.com", "8.8.4.4", "", None),
        ("derp.example.com", "8.8.4.4", "*", None),
        ("derp.example.com", "8.8.4.4", "0.0.0.0", None),
        ("derp.example.com", "8.8.4.4", "::", None),
        ("derp.example.com", "8.8.4.4", "8.8.4.4", None),
        ("8.8.4.4", "", "8.8.4.4", None),
        # Where clients find it, something before it knows.
        ("derp.example.com", "10.0.0.1", "10.0.0.2", None),
        ("8.8.8.8", "10.0.0.1", "10.0.0.2", None),
        ("derp.example.com", "", "stun.example.com", None),
    ],
)
def test_the_address_of_stun_is_told_where_clients_can_use_it(
    hostname: str, host: str, stun_addr: str, found: str | None
):
    fields = {"hostname": hostname, "a": Address(host, 443), "certmode": "manual"}
    node = make_node(config(**fields, stun_addr=stun_addr), None)
    assert node.stun_address == (None if found is None else ip_address(found))
    assert make_node(config(**fields, stun_addr=stun_addr, stun=False), None).stun_address is None


def test_json_is_a_member_of_the_policy_file():
    region = make_region(900, "fra", "Frankfurt", DOMAIN)
    assert as_json(region) == (
        '"derpMap": {\n'
        '  "Regions": {\n'
        '    "900": {\n'
        '      "RegionID": 900,\n'
        '      "RegionCode": "fra",\n'
        '      "RegionName": "Frankfurt",\n'
        '      "Nodes": [\n'
        "        {\n"
        '          "Name": "900a",\n'
        '          "RegionID": 900,\n'
        '          "HostName": "derp.example.com"\n'
        "        }\n"
        "      ]\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


def test_yaml_is_a_file_for_headscale():
    node = Node("192.0.2.7", PIN, 8443, None)
    assert as_yaml(make_region(901, "fra", "Frankfurt", node)) == (
        "regions:\n"
        "  901:\n"
        "    regionid: 901\n"
        '    regioncode: "fra"\n'
        '    regionname: "Frankfurt"\n'
        "    nodes:\n"
        '      - name: "901a"\n'
        "        regionid: 901\n"
        '        hostname: "192.0.2.7"\n'
        f'        certname: "{PIN}"\n'
        '        ipv4: "192.0.2.7"\n'
        "        stunport: -1\n"
        "        derpport: 8443\n"
    )


def read_yaml(text: str) -> dict[str, Any]:
    """Read maps and lists of scalars that are also JSON: all that the entry is made of."""
    root: dict[str, Any] = {}
    open_maps = [(-1, root)]
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" -"))
        key, _, value = line.strip(" ").removeprefix("- ").partition(":")
        if line.lstrip(" ").startswith("- "):
            while open_maps[-1][0] >= indent - 2:
                open_maps.pop()
            item: dict[str, Any] = {}
            open_maps[-1][1].setdefault("", []).append(item)
            open_maps.append((indent - 1, item))
        while open_maps[-1][0] >= indent:
            open_maps.pop()
        if value:
            open_maps[-1][1][key] = json.loads(value)
        else:
            inner: dict[str, Any] = {}
            open_maps[-1][1][key] = inner
            open_maps.append((indent, inner))
    return root


def lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): lower(member) for name, member in value.items()}
    return [lower(member) for member in value] if isinstance(value, list) else value


@given(
    name=st.text(min_size=1, max_size=80).filter(lambda text: text.strip() and text.isprintable()),
    pin=st.sampled_from([None, PIN]),
    derp_port=st.none() | st.integers(1, 65535),
    stun_port=st.none() | st.integers(1, 65535),
)
def test_json_and_yaml_say_the_same(
    name: str, pin: str | None, derp_port: int | None, stun_port: int | None
):
    assert region_name(name) == name
    node = Node("2001:db8::7", pin, derp_port, stun_port)
    region = make_region(950, "x", name, node)
    assert json.loads(f"{{{as_json(region)}}}") == {"derpMap": {"Regions": {"950": region}}}
    assert as_yaml(region).isascii() == name.isascii()
    found = read_yaml(as_yaml(region))["regions"]["950"]
    assert {**found, "nodes": found["nodes"][""]} == lower(region)


@pytest.mark.parametrize("value", [900, 999])
def test_region_ids(value: int):
    assert region_id(value) == value


@pytest.mark.parametrize("value", [-1, 0, 1, 899, 1000, 2**62])
def test_region_ids_of_others(value: int):
    with pytest.raises(ValueError, match=r"^want 900 to 999"):
        region_id(value)


@pytest.mark.parametrize("value", ["", "-", "a b", "a\nb", "é", 'a"', "x" * 33, "-fra", "fra-"])
def test_wrong_region_codes(value: str):
    with pytest.raises(ValueError, match=r"^want a short name"):
        region_code(value)


@pytest.mark.parametrize("value", ["fra", "f", "custom-east", "x" * 32])
def test_region_codes(value: str):
    assert region_code(value) == value


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\x85b", "\udcff", "\u2028", "x" * 81])
def test_wrong_region_names(value: str):
    with pytest.raises(ValueError, match=r"^want a name"):
        region_name(value)
