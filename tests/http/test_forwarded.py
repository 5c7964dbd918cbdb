"""The client behind proxies, by the headers that these add; and clients that make some up."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.forwarded import HEADERS, MAX_COMMAS, MAX_PAIRS, client
from derp.http.message import BadRequest
from derp.net.address import Endpoint
from derp.relay.networks import is_in

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:1::/48")]
REAL = "192.0.2.7"
FORGED = "203.0.113.66"


def found(*headers: str) -> Endpoint | None:
    """The client by these header lines."""
    pairs = [line.split(": ", 1) for line in headers]
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    return client(lines, lambda host: is_in(host, PROXIES))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"X-Forwarded-For: {REAL}", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {REAL}, 10.0.0.5", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {REAL},10.0.0.5 ,\t10.1.0.5", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: , ,{REAL}, ,", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {FORGED}, {REAL}", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {FORGED}, {REAL}, 10.0.0.5", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: 10.0.0.9, {REAL}", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: unknown, {REAL}", Endpoint(REAL, 0)),
        (f'X-Forwarded-For: ", {REAL}', Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {REAL}:4711", Endpoint(REAL, 4711)),
        ("X-Forwarded-For: 2001:DB8::7", Endpoint("2001:db8::7", 0)),
        ("X-Forwarded-For: [2001:db8::7]:4711", Endpoint("2001:db8::7", 4711)),
        ("X-Forwarded-For: [2001:db8::7]", Endpoint("2001:db8::7", 0)),
        ("X-Forwarded-For: 2001:db8::7, 2001:db8:1::5", Endpoint("2001:db8::7", 0)),
        ("X-Forwarded-For: fe80::7%eth0", Endpoint("fe80::7", 0)),
        (f"X-Forwarded-For: ::ffff:{REAL}", Endpoint(REAL, 0)),
        (f"X-Forwarded-For: {REAL}, ::ffff:10.0.0.5", Endpoint(REAL, 0)),
        (f"X-Real-IP: {REAL}", Endpoint(REAL, 0)),
        (f"Forwarded: for={REAL}", Endpoint(REAL, 0)),
        (f"Forwarded: FOR={REAL}:4711;proto=https;by=10.0.0.5", Endpoint(REAL, 4711)),
        (f'Forwarded: proto=https; For="{REAL}:_http"', Endpoint(REAL, 0)),
        ('Forwarded: for="[2001:db8::7]:4711", for=10.0.0.5', Endpoint("2001:db8::7", 4711)),
        (f"Forwarded: for={FORGED}, for={REAL}", Endpoint(REAL, 0)),
        (f'Forwarded: for="{FORGED}, for={REAL}', Endpoint(REAL, 0)),
        (f'Forwarded: x="\\", for="{REAL}"', Endpoint(REAL, 0)),
        (f'Forwarded: host="a,b";for={REAL}', Endpoint(REAL, 0)),
        (f'Forwarded: for={FORGED}, for={REAL};host="a,b"', Endpoint(REAL, 0)),
        # What names no client.
        ("X-Forwarded-For: 10.0.0.5, 10.0.0.6", None),
        ("X-Forwarded-For: ", None),
        ("X-Forwarded-For: ,", None),
        ("Forwarded: ", None),
        (f"X-Forwarded: {REAL}", None),
    ],
)
def test_one_header(header: str, expected: Endpoint | None) -> None:
    assert found("Host: x", header, "Accept: */*") == expected


@pytest.mark.parametrize(
    "header",
    [
        f"X-Forwarded-For: {FORGED}, unknown",
        f"X-Forwarded-For: {FORGED}, 192.0.2.256",
        f"X-Forwarded-For: {FORGED}, {REAL}:65536",
        f"X-Forwarded-For: {FORGED}, [{REAL}",
        f'X-Forwarded-For: {FORGED}, "',
        "X-Forwarded-For: unknown, 10.0.0.5",
        f"Forwarded: for={FORGED}, for=_hidden",
        f"Forwarded: for={FORGED}, by=10.0.0.5",
        f"Forwarded: for={FORGED}, for=unknown;by={REAL}",
        "Forwarded: proto=https",
        # What a client may have put into a value of the proxy's.
        f'Forwarded: proto=https;host="a;for={FORGED}";for="unknown"',
        f'Forwarded: host="\\",for={FORGED};x=\\"";for={REAL}',
        f'Forwarded: host="a\\";for={FORGED};x=\\"";for={REAL}',
        f"Forwarded: host=a;for={FORGED};for={REAL}",
        f"Forwarded: for={REAL};host=a;for={FORGED}",
        f"Forwarded: for={REAL};host=a b",
        f"Forwarded: for={REAL};",
        f"Forwarded: for={REAL};;proto=https",
        f"Forwarded: for={REAL};host=",
        f"Forwarded: {'a=b;' * MAX_PAIRS}for={REAL}",
    ],
)
def test_what_can_t_be_read_is_not_the_proxy_itself(header: str) -> None:
    """Else a client could choose to be taken for the proxy, which has no limits."""
    for lines in ([header], [header, f"X-Real-IP: {REAL}"]):
        with pytest.raises(BadRequest) as caught:
            found(*lines)
        assert caught.value.status == 400
        assert str(caught.value) == (
            f"{header.partition(':')[0]} names no client that can be read; the proxy has to set it "
            f"to the client's address, or to remove it"
        )


@pytest.mark.parametrize("separator", [";", "; ", " ;\t"])
def test_values_of_the_client_s_are_no_pairs(separator: str) -> None:
    for value in (f'"a;for={FORGED}"', f'"a;for={FORGED};"', f'"a,for={FORGED},"', '""', "a:1"):
        for pairs in (
            ("proto=https", f"host={value}", f"for={REAL}"),
            (f"for={REAL}", f"host={value}", "proto=https"),
        ):
            assert found(f"Forwarded: {separator.join(pairs)}") == Endpoint(REAL, 0)


def test_lines_of_one_header_are_one_list() -> None:
    """HAProxy adds a line, and leaves the client's."""
    lines = (f"X-Forwarded-For: {FORGED}", f"X-Forwarded-For: {REAL}, 10.0.0.5")
    assert found(*lines, "X-Forwarded-For: 10.0.0.6") == Endpoint(REAL, 0)


def test_headers_that_agree() -> None:
    """One that has proxies only says nothing. A port is that of one header alone: others may be
    the client's."""
    for lines in (
        (f"X-Real-IP: {REAL}", f"X-Forwarded-For: {FORGED}, {REAL}"),
        (f"X-Real-IP: {REAL}", f"Forwarded: for={REAL}:0", f"X-Forwarded-For: {REAL}"),
        ("X-Real-IP: 10.0.0.5", f"X-Forwarded-For: {REAL}, 10.0.0.5"),
    ):
        assert found(*lines) == Endpoint(REAL, 0)
    for other in (f"X-Real-IP: {REAL}", "X-Real-IP: 10.0.0.5", "X-Real-IP: "):
        lines = (other, f'Forwarded: for="{REAL}:4711"')
        assert found(*lines) == found(*reversed(lines)) == Endpoint(REAL, 0)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ((f"X-Real-IP: {REAL}", f"X-Forwarded-For: {FORGED}"), "X-Real-IP and X-Forwarded-For"),
        ((f"Forwarded: for={FORGED}", f"X-Real-IP: {REAL}"), "Forwarded and X-Real-IP"),
    ],
)
def test_headers_that_disagree_are_not_believed(lines: tuple[str, ...], names: str) -> None:
    with pytest.raises(BadRequest) as caught:
        found(*lines)
    assert caught.value.status == 400
    assert str(caught.value) == (
        f"{names} name different clients; -trusted-proxies has to have all proxies, and these to "
        f"remove what they do not set"
    )


def test_what_stands_far_to_the_left_is_not_looked_at() -> None:
    near = f"{REAL}, " + ", ".join(["10.0.0.5"] * (MAX_COMMAS - 1))
    assert found(f"X-Forwarded-For: {near}") == Endpoint(REAL, 0)
    with pytest.raises(BadRequest, match="X-Forwarded-For names no client that can be read"):
        found(f"X-Forwarded-For: {near}, 10.0.0.5")


@pytest.mark.parametrize("text", [",", '",', "for=,", 'for=",', "10.0.0.5,", 'for="10.0.0.5",'])
def test_a_long_header_is_no_work(text: str) -> None:
    value = (text * (1 << 14))[: 1 << 14]
    asked: list[str] = []
    lines = [(name, value.encode()) for name in HEADERS]
    with pytest.raises(BadRequest, match="names no client that can be read"):
        client(lines, lambda host: not asked.append(host))
    assert len(asked) <= len(HEADERS) * MAX_COMMAS


@given(
    st.sampled_from([*HEADERS.values()]),
    st.lists(st.text(st.sampled_from('for="[]:;,. 127x_-\\'), max_size=20), max_size=4),
    st.sampled_from([REAL, f"{REAL}:80", f'"{REAL}:80"', '"[2001:db8::7]"', '"[2001:db8::7]:80"']),
)
def test_no_forgery_hides_what_the_proxy_adds(name: str, forged: list[str], added: str) -> None:
    added = f"for={added};by=10.0.0.5" if name == "Forwarded" else added.strip('"')
    expected = found(f"{name}: {added}")
    assert expected is not None
    assert found(f"{name}: {', '.join([*forged, added])}") == expected
    assert found(*(f"{name}: {line}" for line in forged), f"{name}: {added}") == expected


@given(st.text(st.sampled_from('for="[]:;,. 126x_-\\\\'), max_size=40))
def test_no_host_of_the_client_s_hides_what_the_proxy_adds(host: str) -> None:
    """However the proxy writes it: the client is refused at the most."""
    escaped = host.replace("\\", "\\\\").replace('"', '\\"')
    for written in (host, f'"{host}"', f'"{escaped}"'):
        with contextlib.suppress(BadRequest):
            assert found(f"Forwarded: proto=https;host={written};for={REAL}") == Endpoint(REAL, 0)


@given(st.sampled_from([*HEADERS.values()]), st.text(st.characters(max_codepoint=255), max_size=99))
def test_any_value(name: str, value: str) -> None:
    try:
        node = found(f"{name}: {value}")
    except BadRequest:
        return
    if node is not None:
        assert str(ipaddress.ip_address(node.host)) == node.host
        assert 0 <= node.port <= 65535
        assert not is_in(node.host, PROXIES)
