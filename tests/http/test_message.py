import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.message import BadRequest, Request, parse_request

HOST = [(b"host", b"derp.example")]


def parse(
    target: bytes = b"/",
    *,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    headers: list[tuple[bytes, bytes]] = HOST,
) -> Request:
    return parse_request(method, target, version, headers, "192.0.2.7")


@pytest.mark.parametrize(
    ("method", "target", "host", "path", "query"),
    [
        (b"GET", b"/", "derp.example", "/", ""),
        (b"GET", b"/derp?a=1?b", "derp.example", "/derp", "a=1?b"),
        (b"GET", b"/?", "derp.example", "/", ""),
        (b"GET", b"//a/../b", "derp.example", "//a/../b", ""),
        (b"GET", b"/%41", "derp.example", "/%41", ""),
        (b"GET", b"/x?%zz", "derp.example", "/x", "%zz"),
        (b"GET", b"http://other.example:81/x?y", "other.example:81", "/x", "y"),
        (b"GET", b"HTTPS://other.example", "other.example", "/", ""),
        (b"GET", b"http://other.example?y", "other.example", "/", "y"),
        (b"GET", b"http:///x", "derp.example", "/x", ""),
        (b"OPTIONS", b"*", "derp.example", "*", ""),
        (b"CONNECT", b"a:443", "derp.example", "", ""),
    ],
)
def test_target(method: bytes, target: bytes, host: str, path: str, query: str) -> None:
    request = parse(target, method=method)
    assert (request.host, request.path, request.query) == (host, path, query)
    assert request.target == target.decode()


@pytest.mark.parametrize(
    "target", [b"*", b"derp", b"ftp://a/", b"mailto:a", b"/%zz", b"/%4", b"http://a@b/", b"a:443"]
)
def test_target_that_means_nothing(target: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(target)
    assert caught.value.status == 400


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1"])
def test_version_not_spoken(version: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(version=version)
    assert caught.value.status == 505


@pytest.mark.parametrize(
    "host",
    [b"a b", b"a/b", b"a@b", b"a\\b", b'a"', b"<a>", b"a\x01", b"\xe9", b"a?b", b"a#b", b"{a}"],
)
def test_host_that_names_no_host(host: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(headers=[(b"host", host)])
    assert caught.value.status == 400


def test_host_in_target_that_names_no_host() -> None:
    for target in (b"http://a b/", b"http://a@b/", b"http://a\\b/", b"http://<a>/"):
        with pytest.raises(BadRequest):
            parse(target)


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"[2001:db8::1]:443", b"", b"192.0.2.1"])
def test_host(host: bytes) -> None:
    assert parse(headers=[(b"host", host)]).host == host.decode()


def test_host_may_be_missing_in_1_0_only() -> None:
    assert parse(version=b"1.0", headers=[]).host == ""
    for version in (b"1.1", b"1.2"):
        with pytest.raises(BadRequest) as caught:
            parse(version=version, headers=[])
        assert caught.value.status == 400


def test_expectation() -> None:
    assert parse(headers=[*HOST, (b"expect", b"100-Continue")]).path == "/"
    with pytest.raises(BadRequest) as caught:
        parse(headers=[*HOST, (b"expect", b"the worst")])
    assert caught.value.status == 417


def test_header_lookup() -> None:
    request = parse(headers=[*HOST, (b"x", b"1, 2"), (b"x", b",3"), (b"y", b"\xe9")])
    assert request.header(b"x") == "1, 2"
    assert request.header(b"y") == "é"
    assert request.header(b"z") == ""
    assert request.tokens(b"x") == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("headers", "length", "has_body"),
    [
        ([], 0, False),
        ([(b"content-length", b"0")], 0, False),
        ([(b"content-length", b"7")], 7, True),
        ([(b"transfer-encoding", b"chunked")], 0, True),
    ],
)
def test_body(headers: list[tuple[bytes, bytes]], length: int, has_body: bool) -> None:
    request = parse(headers=HOST + headers)
    assert (request.content_length, request.has_body) == (length, has_body)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("length", [[], [(b"content-length", b"5")]])
def test_body_whose_end_is_not_clear(version: bytes, length: list[tuple[bytes, bytes]]) -> None:
    headers = [*HOST, (b"transfer-encoding", b"chunked"), *length]
    if version == b"1.1" and not length:
        assert parse(version=version, headers=headers).has_body
        return
    with pytest.raises(BadRequest) as caught:
        parse(version=version, headers=headers)
    assert caught.value.status == 400


@given(st.binary(), st.binary(), st.binary())
def test_any_bytes(method: bytes, target: bytes, host: bytes) -> None:
    try:
        request = parse_request(method, target, b"1.1", [(b"host", host)], "192.0.2.7")
    except BadRequest as refusal:
        said = f"{refusal.status} {refusal}"
    else:
        said = request.host
        assert request.path[:1] in {"", "/", "*"}
    assert said.isascii()
    assert said.isprintable()
    assert not set(said) & set('/\\@"<>')
