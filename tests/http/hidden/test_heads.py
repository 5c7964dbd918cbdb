"""Heads as nginx reads them; tests/field/test_hidden.py compares with the real one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.hidden.grammar import Fault, is_host
from derp.http.hidden.heads import MAX_LINES, MAX_REQUESTS, Head, HeadReader

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"

Outcome = tuple[object, ...]


def outcomes(*pieces: bytes) -> list[Outcome]:
    """What a reader makes of the pieces: for each head or fault what the answer depends on."""
    reader, found = HeadReader(), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (head := reader.next()) is not None:
                line = head.line
                kept = (line.method, line.target, line.version, head.raw, tuple(head.fields))
                body = (head.length, head.chunked, head.keeps_alive, head.padded)
                found.append((*kept, *body))
    except Fault as fault:
        found.append((fault.status, fault.method, fault.version, reader.padded))
    return found


def head(data: bytes) -> Head:
    reader = HeadReader()
    reader.feed(data)
    found = reader.next()
    assert found is not None
    return found


def fault(data: bytes) -> tuple[int, bytes, int]:
    reader = HeadReader()
    reader.feed(data)
    with pytest.raises(Fault) as caught:
        reader.next()
    return caught.value.status, caught.value.method, caught.value.version


@pytest.mark.parametrize(
    ("data", "version", "keeps_alive"),
    [
        (GET + b"\r\n", 1001, True),
        (b"GET / HTTP/1.1\nHost: x\n\n", 1001, True),
        (GET + b"Connection: close\r\n\r\n", 1001, False),
        (GET + b"Connection: Keep-Alive, CLOSE\r\n\r\n", 1001, False),
        (b"GET / HTTP/1.0\r\n\r\n", 1000, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 1000, True),
        (b"GET / HTTP/1.9\r\nHost: x\r\n\r\n", 1009, True),
        (b"GET / HTTP/1.000\r\n\r\n", 1000, False),
        (b"GET /\r\n", 9, False),
        (b"GET / \n", 9, False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nUser-Agent: (MSIE 6.0; W)\r\n\r\n", 1001, False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nUser-Agent: (MSIE 6.0; SV1)\r\n\r\n", 1001, True),
    ],
)
def test_versions_and_whether_the_connection_goes_on(
    data: bytes, version: int, keeps_alive: bool
) -> None:
    found = head(data)
    assert (found.line.version, found.keeps_alive, found.raw) == (version, keeps_alive, data)


@pytest.mark.parametrize(
    "target",
    [
        *(b"/", b"/a/../b", b"/%41%2f%2E", b"/a?%zz", b"/a#%zz", b"//a//"),
        *(
            b"http://a/x",
            b"http://a",
            b"http://a:/",
            b"http://[::1]:80/x",
            b"h2+x.-://a?b",
            b"/%23",
        ),
        *(b"/..%23", b"/..%3f", b"/...", b"/a/..", b"/\xff", b"http://a.:80/"),
    ],
)
def test_targets(target: bytes) -> None:
    assert head(b"GET " + target + b" HTTP/1.0\r\n\r\n").line.target == target


@pytest.mark.parametrize(
    "target",
    [
        *(b"/%", b"/%4", b"/%zz", b"/%00", b"/..", b"/a/../..", b"/%2e.", b"/a/%2e%2e%2f.."),
        *(
            b"http://a..b/",
            b"http:///x",
            b"http://./",
            b"http://:80/",
            b"http://a/%zz",
            b"x://a/..",
        ),
    ],
)
def test_wrong_targets(target: bytes) -> None:
    assert fault(b"GET " + target + b" HTTP/1.1\r\n") == (400, b"GET", 1001)
    assert fault(b"GET " + target + b" \r\n") == (400, b"GET", 9)


@pytest.mark.parametrize(
    ("data", "status", "method"),
    [
        (b"\x80", 400, b""),
        (b"get", 400, b""),
        (b"GET/", 400, b""),
        (b"HEAD x ", 400, b"HEAD"),
        (b"GET /a b", 400, b"GET"),
        (b"GET /\x01", 400, b"GET"),
        (b"GET http://a\r", 400, b"GET"),
        (b"GET / HTTQ", 400, b"GET"),
        (b"GET / HTTP/0", 400, b"GET"),
        (b"GET / HTTP/2", 505, b"GET"),
        (b"GET / HTTP/11", 505, b"GET"),
        (b"GET / HTTP/1.1234", 400, b"GET"),
        (b"GET / HTTP/1.1\rx", 400, b"GET"),
        (GET + b" x", 400, b"GET"),
        (GET + b":", 400, b"GET"),
        (GET + b"a b", 400, b"GET"),
        (GET + b"a: b\0", 400, b"GET"),
        (GET + b"a: b\rc", 400, b"GET"),
        (GET + b"\rx", 400, b"GET"),
        (GET + b"Host: y\r\n", 400, b"GET"),
        (GET + b"Expect: a\r\nExpect: b\r\n", 400, b"GET"),
        (b"GET / HTTP/1.1\r\nHost\r\n", 400, b"GET"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, b"GET"),
        (GET + b"Content-Length: \r\n\r\n", 400, b"GET"),
        (GET + b"Content-Length: +1\r\n\r\n", 400, b"GET"),
        (GET + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400, b"GET"),
        (GET + b"Transfer-Encoding: gzip\r\n\r\n", 501, b"GET"),
        (GET + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, b"GET"),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, b"GET"),
        (b"TRACE / HTTP/1.0\r\n\r\n", 405, b"TRACE"),
        (b"CONNECT / HTTP/1.0\r\n\r\n", 405, b"CONNECT"),
        (b"GET /" + b"a" * 9000, 414, b"GET"),
        (b"HEAD /" + b"a" * 9000, 414, b"HEAD"),
        (b"A" * 9000, 414, b""),
        (GET + b"a: " + b"a" * 9000, 494, b"GET"),
        (GET + b"a: b\r\n" * MAX_LINES, 494, b"GET"),
    ],
)
def test_faults_are_found_at_once(data: bytes, status: int, method: bytes) -> None:
    assert fault(data) == (status, method, 1000)
    # Not before.
    assert outcomes(data[:-1]) in ([], outcomes(data))


def test_a_fault_of_http_09_is_told_without_a_head() -> None:
    assert fault(b"POST /\r\n") == (400, b"POST", 9)


@pytest.mark.parametrize(
    ("lines", "fits"),
    [
        # The rest of the first buffer, and four large ones.
        ([1024 - len(GET), 8192, 8192, 8192, 8189], True),
        ([1024 - len(GET), 8192, 8192, 8192, 8191], False),
        # A line that does not fit where it begins is moved.
        ([7000] * 4, True),
        ([7000] * 5, False),
        ([8192], True),
        ([8193], False),
        ([900] * 36, True),
        ([900] * 38, False),
    ],
)
def test_lines_fill_buffers_as_in_nginx(lines: list[int], fits: bool) -> None:
    fields = b"".join(b"a:" + b"b" * (length - 4) + b"\r\n" for length in lines)
    data = GET + fields + b"\r\n"
    if fits:
        assert head(data).raw == data
    else:
        assert fault(data) == (494, b"GET", 1000)


def test_a_request_that_follows_at_once_has_buffers_of_its_own() -> None:
    large = GET + b"A: bb\r\n".replace(b"bb", b"b" * 7000) * 3 + b"\r\n"
    assert [found[0] for found in outcomes(large * 3)] == [b"GET"] * 3


def test_empty_lines_are_no_part_of_a_head() -> None:
    for count in (1, 1023, 1024, 5000):
        assert head(b"\n" * count + GET + b"\r\n").raw == GET + b"\r\n"


def test_fields_with_odd_names_are_ignored() -> None:
    data = GET + b"Content_Length: 5\r\nHo st\x80: y\r\n".replace(b" ", b"") + b"A:  b c \r\n\r\n"
    assert head(data).fields == [(b"host", b"x"), (b"a", b"b c")]


@pytest.mark.parametrize(
    ("agent", "padded"),
    [
        (b"Mozilla/5.0 (KHTML, like Gecko) Chrome/1", True),
        (b"Mozilla/5.0 Gecko/20100101 Chrome/1", False),
        (b"Mozilla/4.0 (MSIE 7.0; Windows)", True),
        (b"MSIE 7", False),
        (b"Opera MSIE 7.0; Chrome/", False),
        (b"curl/8.0", False),
    ],
)
def test_pages_are_padded_for_some_browsers(agent: bytes, padded: bool) -> None:
    data = GET + b"User-Agent: " + agent + b"\r\nUser-Agent: Chrome/\r\n"
    assert head(data + b"\r\n").padded is padded
    # Also that of a fault which comes later.
    assert outcomes(data + b" ") == [(400, b"GET", 1000, padded)]


def test_one_request_follows_another_but_not_without_end() -> None:
    reader = HeadReader()
    for number in range(1, MAX_REQUESTS + 1):
        reader.feed(GET + b"\r\n")
        found = reader.next()
        assert found is not None
        assert found.keeps_alive == (number < MAX_REQUESTS)
        assert not reader.has_begun


def test_what_follows_a_head_can_be_taken() -> None:
    reader = HeadReader()
    reader.feed(b"\r\n" + GET + b"\r\nmore")
    assert reader.next() is not None
    assert reader.has_begun
    assert reader.take() == b"more"
    assert (reader.has_begun, reader.held, reader.take()) == (False, 0, b"")


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        *((host, True) for host in (b"a", b"a.b", b"a.", b"a:80", b"[::1]", b"[::1]:80", b"a:x")),
        *((host, True) for host in (b"[::1", b"a_b", b"\xff", b"a]")),
        *((host, False) for host in (b"", b".", b":80", b"a..b", b"a/b", b"a b", b"a\x7f", b".:1")),
    ],
)
def test_hosts(host: bytes, is_one: bool) -> None:
    assert is_host(host) is is_one


WORDS = st.sampled_from(
    [
        *(b"GET", b"HEAD", b"POST", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r"),
        *(b"Host: x\r\n", b"http://a", b"[", b"]", b":", b"%2e", b"..", b"?", b"Content-Length: 3"),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\0", b"a" * 5000),
    ]
)
DATA = st.lists(WORDS | st.binary(max_size=3), max_size=30).map(b"".join)


@given(DATA, st.data())
def test_how_the_bytes_are_split_changes_nothing(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole = outcomes(data)
    assert outcomes(*pieces) == whole
    for found in whole:
        assert found[0] in {400, 405, 414, 494, 501, 505} or isinstance(found[0], bytes)
