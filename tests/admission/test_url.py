"""Admission controllers, played by servers on loopback, from good to hostile."""

import errno
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trustme

from derp.admission import url as url_module
from derp.admission.model import Outcome, Question
from derp.admission.url import AdmissionURL, _Brackets, read_allow
from derp.errors import StartError, UsageError
from derp.net.httpclient import URL
from tests.admission.conftest import (
    NODE,
    SHORT,
    Answer,
    Close,
    Forever,
    Hang,
    StartTCP,
    Wait,
    always,
    chunked,
    response,
)

YES = response(200, '{"Allow":true}\n', Content_Type="application/json")
NO = response(200, '{"Allow":false}\n')


@pytest.fixture(scope="module")
def few_roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("roots") / "roots.pem"
    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(file)
    return file


@pytest.fixture(autouse=True)
def machine_with_few_roots(few_roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading those of a real machine takes longer than most tests here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(few_roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(few_roots.parent / "none"))


async def outcome(url: str, question: Question, patience: float = 5.0) -> Outcome:
    async with AdmissionURL(url, timeout=patience, latest=patience) as source:
        return (await source.ask(question)).outcome


async def test_what_is_asked(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(YES))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.ALLOWED
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/verify")
    assert json.loads(request.body) == {"NodePublic": NODE, "Source": "192.0.2.1"}
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers


async def test_the_name_is_the_url_without_what_may_be_secret(question: Question) -> None:
    async with AdmissionURL("https://user:secret@Control.test/verify?token=secret") as source:
        assert source.name == "control.test/verify"
    async with AdmissionURL("http://[::1]:8080/") as source:
        assert source.name == "[::1]:8080"


async def test_a_refusal_says_who_refuses(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(NO))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.REFUSED
    assert answer.reason == f"127.0.0.1:{server.port} does not allow it"


ALLOWED = [
    '{"Allow":true}',
    '{"allow":true}',
    '{"aLLow" : true}',
    '{"Allow":true} trailing',
    '{"Allow":true}}',
    '{"Allow":true}{"Allow":false}',
    '{"Allow":true}\0',
    '{"Allow":true}' + 5120 * " ",
    '{"Allow":false,"allow":true}',
    '{"Allow":true,"Allow":null}',
    '{"Allow":true,"Other":{"Allow":false}}',
    '{"Allow":true,"x":' + 200 * "[" + 200 * "]" + "}",
    4082 * " " + '{"Allow":true}',
    '\n\t\r {"Allow":true}',
    '{"Allow":true,"x":1e999}',
    '{"Allow":true,"x":-0}',
    b'{"Allow":true,"x":"\xff"}',
    b'{"Allow":true,"\xff":1}',
    '{"Allow":true,"x":"\x7f"}',
    '{"Allow":true,"x":"\\ud800"}',
    '{"\\u0041llow":true}',
    '{"Allow":true,"":1}',
    '{"Allow":true,"x":' + 4000 * "9" + "}",
]
REFUSED = [
    '{"Allow":false}',
    '{"Allow":null}',
    "null",
    'null{"Allow":true}',
    "{}",
    '{"Allow":false}{"Allow":true}',
    '{"Allow":true,"Allow":false}',
    '{"Other":{"Allow":true}}',
    '{"Allow ":true}',
    '{"Allo\u1d42":true}',
    '{"Allow\\u0000":true}',
]
NONSENSE = [
    "",
    " ",
    "[]",
    '[{"Allow":true}]',
    "true",
    '""',
    "0",
    "<html>",
    '{"Allow":"true"}',
    '{"Allow":1}',
    '{"Allow":[true]}',
    '{"Allow":{}}',
    '{"Allow":"x","Allow":true}',
    '{"Allow":true,"Allow":"x"}',
    b'\xef\xbb\xbf{"Allow":true}',
    5120 * " " + '{"Allow":true}',
    4083 * " " + '{"Allow":true}',
    '\v{"Allow":true}',
    b'\xa0{"Allow":true}',
    '\xa0{"Allow":true}',
    '{"Allow":tru',
    '{"Allow":true',
    '{"Allow":true,}',
    '{"Allow":true /* x */}',
    "{'Allow':true}",
    '{"Allow":True}',
    '{"Allow":true,1:1}',
    '{"Allow":true,"x":NaN}',
    '{"Allow":true,"x":-Infinity}',
    '{"Allow":true,"x":01}',
    '{"Allow":true,"x":1.}',
    '{"Allow":true,"x":"\n"}',
    '{"Allow":true,"x":"\0"}',
    '{"Allow":true,"x":"\\q"}',
    '{"Allow":true,"x":"\\u12"}',
    4096 * "[",
    1500 * "[" + 1500 * "]",
]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        *((body, Outcome.ALLOWED) for body in ALLOWED),
        *((body, Outcome.REFUSED) for body in [*REFUSED, *NONSENSE]),
    ],
)
async def test_verdicts_are_read_as_go_reads_them(
    start_tcp: StartTCP, question: Question, body: str | bytes, want: Outcome
) -> None:
    """What encoding/json's Decoder makes of each, over io.LimitReader(body, 4<<10)."""
    server = await start_tcp(always(response(200, body)))
    assert await outcome(server.url, question) is want


def test_nonsense_is_told_from_a_refusal() -> None:
    assert [read_allow(one.encode()) for one in REFUSED] == [False] * len(REFUSED)
    for one in NONSENSE:
        data = one.encode() if isinstance(one, str) else one
        assert read_allow(data[:4096]) is None, data


@pytest.mark.parametrize(
    "text",
    [
        b'{"Allow": true}',
        b' {"}": [{}, "]}", "\\"}"], "\\\\": {"x": "{["}}',
        b"[[], {}]",
        b"}",
        b"]",
    ],
)
def test_the_end_of_an_object_in_pieces(text: bytes) -> None:
    for size in range(1, len(text) + 1):
        brackets = _Brackets()
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        ends = [brackets.feed(piece) for piece in pieces]
        assert ends == [False] * (len(pieces) - 1) + [True]


def test_any_prefix_of_a_verdict_is_none() -> None:
    text = b' {"x": {"Allow": true}, "Allow": true}'
    assert [read_allow(text[:end]) for end in range(len(text))] == [None] * len(text)
    assert read_allow(text) is True


@pytest.mark.parametrize("code", [201, 204, 300, 304, 400, 401, 403, 404, 418, 500, 503])
async def test_any_status_but_200_is_a_refusal(
    start_tcp: StartTCP, question: Question, code: int
) -> None:
    body = b"" if code in {204, 304} else b'{"Allow":true}'
    server = await start_tcp(always(response(code, body)))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.REFUSED
    assert f"HTTP status {code}" in answer.reason


async def test_what_goes_with_another_status_is_not_read(
    start_tcp: StartTCP, question: Question
) -> None:
    head = b"HTTP/1.1 500 Trouble\r\nTransfer-Encoding: chunked\r\n\r\n"
    for end in (Hang(), Forever(b"10000\r\n" + b"x" * 65536 + b"\r\n")):
        server = await start_tcp(always((head, end)))
        async with AdmissionURL(server.url) as source:
            assert (await source.ask(question)).outcome is Outcome.REFUSED
            with trio.fail_after(5):
                await server.left.wait()


@pytest.mark.parametrize(
    "said",
    [
        (b"HTTP/1.0 200 OK\r\n\r\n" + b'{"Allow":true}', Close()),
        (b"HTTP/1.1 100 Continue\r\n\r\n", YES),
        tuple(YES[i : i + 1] for i in range(len(YES))),
        (chunked(b'{"x":["}]",{}', b',"\\"}"', b'],"Allow"', b":true}"), Hang()),
        # From here on the Decoder had its value before the trouble came.
        (chunked(b'{"Allow"', b":true}"), Hang()),
        (chunked(b'{"Allow":true}'), Forever(b"1\r\n \r\n")),
        (chunked(b'{"Allow":true}'), Close()),
        (chunked(b'{"Allow":true}') + b"nonsense\r\n", Close()),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"Allow":true}', Close()),
        response(200, b'{"Allow":true}' + b" " * (10 << 20)),
    ],
)
async def test_the_first_value_is_enough(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    assert await outcome(server.url, question) is Outcome.ALLOWED
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.parametrize(
    "said",
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"Allow":', Close()),
        (chunked(b'{"Allow":'), Close()),
        (chunked(b'{"Allow":true') + b"nonsense\r\n", Close()),
        (b"HTTP/1.0 200 OK\r\n\r\n", Close()),
        (chunked(), Forever(b"10000\r\n" + b"x" * 65536 + b"\r\n")),
        (chunked(), Forever(b"1\r\n \r\n")),
        (chunked(b'{"a":['), Forever(b"3\r\n{},\r\n")),
        (chunked(b"}"), Hang()),
        (chunked(b'{"Allow":true,]}'), Hang()),
        response(200, b"x" * (10 << 20)),
        response(200, b'{"x":"' + b"x" * (10 << 20) + b'","Allow":true}'),
    ],
)
async def test_trouble_after_the_head_is_a_refusal(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    assert await outcome(server.url, question) is Outcome.REFUSED
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", Hang()),
        (chunked(b'{"Allow":'), Hang()),
    ],
)
async def test_a_body_that_never_ends_is_a_refusal(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    async with AdmissionURL(server.url, timeout=SHORT) as source:
        answer = await source.ask(question)
        assert answer.outcome is Outcome.REFUSED
        assert "gave no whole answer within" in answer.reason
        with trio.fail_after(5):
            await server.left.wait()


@pytest.mark.parametrize(
    "said",
    [
        (Close(),),
        (b"HTTP/1.1 200 OK\r\n", Close()),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Close()),
        (bytes(range(256)) * 8, Close()),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000, Hang()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Hang()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Hang()),
    ],
)
async def test_trouble_before_the_end_of_the_head_is_unknown(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.UNKNOWN
    assert f"127.0.0.1:{server.port} can't be asked" in answer.reason
    assert "\n" not in answer.reason
    # A connection that never worked is no reason to try another.
    assert server.connections == 1
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.slow
@pytest.mark.parametrize("said", [(Hang(),), (b"HTTP/1.1 200 OK\r\n", Hang())])
async def test_no_answer_in_time_is_late(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    async with AdmissionURL(server.url, latest=SHORT) as source:
        answer = await source.ask(question)
        assert answer.outcome is Outcome.LATE
        assert "within 0.2 s" in answer.reason
        with trio.fail_after(5):
            await server.left.wait()


@pytest.mark.slow
@pytest.mark.parametrize("said", [(Wait(0.1), YES), (YES[:20], Wait(0.1), YES[20:])])
async def test_an_answer_that_comes_late_is_one(
    start_tcp: StartTCP, question: Question, said: Answer
) -> None:
    server = await start_tcp(always(said))
    async with AdmissionURL(server.url) as source:
        source._timeout = 0.0
        assert (await source.ask(question)).outcome is Outcome.ALLOWED


@pytest.mark.slow
async def test_the_body_comes_soon_after_a_late_head(
    start_tcp: StartTCP, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_module, "BODY_TIMEOUT", 0.1)
    server = await start_tcp(always((Wait(0.1), chunked(b'{"Allow":'), Hang())))
    async with AdmissionURL(server.url) as source:
        source._timeout = 0.0
        answer = await source.ask(question)
        assert answer.outcome is Outcome.REFUSED
        assert "gave no whole answer within" in answer.reason


@pytest.mark.slow
async def test_no_connection_in_time_is_none(question: Question) -> None:
    """The kernel accepts it, and nobody begins TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/verify"
        async with AdmissionURL(url, timeout=SHORT) as source:
            answer = await source.ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "can't be asked (no connection within 0.2 s)" in answer.reason


async def test_nobody_listens(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(YES))
    server.scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "Connection refused" in answer.reason


async def test_who_is_cancelled_leaves_nothing_open(
    start_tcp: StartTCP, question: Question
) -> None:
    for said in ((Hang(),), (chunked(b"{"), Hang())):
        server = await start_tcp(always(said))
        async with AdmissionURL(server.url) as source:
            async with trio.open_nursery() as asking:
                asking.start_soon(source.ask, question)
                await server.asked.wait()
                asking.cancel_scope.cancel()
            with trio.fail_after(5):
                await server.left.wait()


async def test_connections_are_used_again(start_tcp: StartTCP, question: Question) -> None:
    for said in (YES, (chunked(b'{"Allow":true}') + b"0\r\n\r\n",)):
        server = await start_tcp(always(said))
        async with AdmissionURL(server.url) as source:
            for _ in range(5):
                assert (await source.ask(question)).outcome is Outcome.ALLOWED
            assert (len(server.requests), server.connections, server.open) == (5, 1, 1)
        with trio.fail_after(5):
            await server.left.wait()


async def test_a_connection_that_was_closed_meanwhile_is_no_trouble(
    start_tcp: StartTCP, question: Question
) -> None:
    server = await start_tcp(always((YES, Close())))
    async with AdmissionURL(server.url) as source:
        for _ in range(3):
            assert (await source.ask(question)).outcome is Outcome.ALLOWED
            with trio.fail_after(5):
                await server.left.wait()
            server.left = trio.Event()
    assert server.connections == 3


async def test_connections_that_die_as_they_are_used_again(
    start_tcp: StartTCP, question: Question
) -> None:
    """The server's end of two connections comes just when a question goes out on them."""
    server = await start_tcp(lambda _: (Close(),) if len(server.requests) in (3, 4) else YES)
    async with AdmissionURL(server.url) as source:
        async with trio.open_nursery() as asking:
            asking.start_soon(source.ask, question)
            asking.start_soon(source.ask, question)
        assert server.connections == 2
        assert (await source.ask(question)).outcome is Outcome.ALLOWED
    assert server.connections == 3
    assert len(server.requests) == 5


async def test_a_server_that_dies_for_good_is_not_tried_for_ever(
    start_tcp: StartTCP, question: Question
) -> None:
    server = await start_tcp(lambda _request: YES if len(server.requests) == 1 else (Close(),))
    async with AdmissionURL(server.url) as source:
        assert (await source.ask(question)).outcome is Outcome.ALLOWED
        assert (await source.ask(question)).outcome is Outcome.UNKNOWN
    assert server.connections == 2


@pytest.mark.parametrize(
    ("code", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
)
async def test_redirects_are_followed(
    start_tcp: StartTCP, question: Question, code: int, method: str
) -> None:
    moved = response(code, "moved", Location="/there?x=1")
    server = await start_tcp(lambda request: moved if request.target == "/verify" else YES)
    async with AdmissionURL(server.url, authorization="Bearer token") as source:
        assert (await source.ask(question)).outcome is Outcome.ALLOWED
    first, second = server.requests
    assert (second.method, second.target) == (method, "/there?x=1")
    assert second.body == (first.body if method == "POST" else b"")
    assert second.headers["authorization"] == "Bearer token"


async def test_a_redirect_is_not_read(start_tcp: StartTCP, question: Question) -> None:
    head = b"HTTP/1.1 307 Moved\r\nLocation: /there\r\nTransfer-Encoding: chunked\r\n\r\n"
    for end in (Hang(), Forever(b"10000\r\n" + b"x" * 65536 + b"\r\n")):
        moved = (head, end)
        server = await start_tcp(
            lambda request, moved=moved: moved if request.target == "/verify" else YES
        )
        async with AdmissionURL(server.url) as source:
            assert (await source.ask(question)).outcome is Outcome.ALLOWED
            with trio.fail_after(5):
                while server.open > 1:
                    await trio.lowlevel.checkpoint()
        assert server.connections == 2


async def test_no_other_server_gets_the_authorization(
    start_tcp: StartTCP, question: Question
) -> None:
    other = await start_tcp(always(YES))
    for host, port in (("127.0.0.2", None), ("127.0.0.1", other.port)):
        target = other if port else None
        server = await start_tcp(always(YES))
        place = f"http://{host}:{port or server.port}/there"
        server.answer = lambda request, place=place: (
            response(307, Location=place) if request.target == "/verify" else YES
        )
        async with AdmissionURL(server.url, authorization="Bearer token") as source:
            assert (await source.ask(question)).outcome is Outcome.ALLOWED
        assert server.requests[0].headers["authorization"] == "Bearer token"
        last = (target or server).requests[-1]
        assert (last.method, last.target) == ("POST", "/there")
        assert "authorization" not in last.headers


async def test_too_many_redirects_are_unknown(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(response(307, Location="/verify")))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.UNKNOWN
    assert "more than 9 redirects" in answer.reason
    # Go's http.Client sends no more either.
    assert len(server.requests) == 10


async def test_nine_redirects_are_not_too_many(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(
        lambda _: YES if len(server.requests) == 10 else response(302, Location="/")
    )
    assert await outcome(server.url, question) is Outcome.ALLOWED


@pytest.mark.parametrize(
    "place",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "unix:/run/x",
        "javascript:alert(1)",
        "http://[::1",
        "http://127.0.0.1:99999/",
        f"http://{'a' * 64}.test/",
        "http://a..test/",
        "http://\xff.test/",
        "http://xn--a.test/",
        "//:0",
        "http://127.0.0.1:1/",
    ],
)
async def test_redirects_that_lead_nowhere_are_unknown(
    start_tcp: StartTCP, question: Question, place: str
) -> None:
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {place}\r\n\r\n"
    server = await start_tcp(always(head.encode("latin-1")))
    assert await outcome(server.url, question) is Outcome.UNKNOWN
    assert len(server.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "method", "said", "what"),
    [
        (301, "GET", NO, "does not allow it"),
        (307, "POST", NO, "does not allow it"),
        (302, "GET", response(405), "answers with HTTP status 405"),
        (308, "POST", response(200, "x"), 'answers with something other than {"Allow": true}'),
        (308, "POST", (b"HTTP/1.1 200 OK\r\n", Hang()), "gave no answer within 2 s"),
    ],
)
async def test_who_was_asked_by_a_redirect_is_named(
    start_tcp: StartTCP, question: Question, code: int, method: str, said: Answer, what: str
) -> None:
    other = await start_tcp(always(said))
    place = f"http://127.0.0.2:{other.port}/there"
    secret = place.replace("//", "//user:secret@") + "?token=secret"
    server = await start_tcp(always(response(code, Location=secret)))
    async with AdmissionURL(server.url, latest=2) as source:
        answer = await source.ask(question)
    reason = f"127.0.0.1:{server.port} redirects to {method} {place}, which {what}"
    assert answer.reason == reason


async def test_who_cant_be_asked_by_a_redirect_is_named(
    start_tcp: StartTCP, question: Question
) -> None:
    server = await start_tcp(always(response(307, Location="http://127.0.0.1:1/there")))
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    beginning = f"127.0.0.1:{server.port} redirects to POST http://127.0.0.1:1/there, which can't"
    assert answer.reason.startswith(beginning)


async def test_a_redirect_to_a_long_path_is_named_in_short(
    start_tcp: StartTCP, question: Question
) -> None:
    server = await start_tcp(
        lambda request: NO if "x" in request.target else response(307, Location="/" + "x" * 4000)
    )
    async with AdmissionURL(server.url) as source:
        answer = await source.ask(question)
    assert len(answer.reason) < 400
    assert answer.reason.endswith("xx…, which does not allow it")


@pytest.mark.parametrize("fields", [{}, {"Location": ""}])
async def test_a_redirect_to_no_place_is_a_refusal(
    start_tcp: StartTCP, question: Question, fields: dict[str, str]
) -> None:
    server = await start_tcp(always(response(302, '{"Allow":true}', **fields)))
    assert await outcome(server.url, question) is Outcome.REFUSED
    assert len(server.requests) == 1


async def test_cookies_are_not_kept(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(response(200, '{"Allow":true}', Set_Cookie="a=b; Path=/")))
    async with AdmissionURL(server.url) as source:
        for _ in range(2):
            await source.ask(question)
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


async def test_user_and_password_of_the_url(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(YES))
    url = server.url.replace("//", "//user:secret@")
    assert await outcome(url, question) is Outcome.ALLOWED
    async with AdmissionURL(url, authorization="Bearer token") as source:
        await source.ask(question)
    said = [request.headers["authorization"] for request in server.requests]
    assert said == ["Basic dXNlcjpzZWNyZXQ=", "Bearer token"]


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def through(url: str) -> None:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)

    return through


async def test_the_proxy_of_the_environment(
    start_tcp: StartTCP, question: Question, proxied: Callable[[str], None]
) -> None:
    """As in Go, with the exception of this machine itself."""
    proxy, server = await start_tcp(always(YES)), await start_tcp(always(YES))
    proxied(f"http://127.0.0.1:{proxy.port}")
    assert await outcome("http://control.test/verify", question) is Outcome.ALLOWED
    assert [one.target for one in proxy.requests] == ["http://control.test/verify"]
    assert await outcome(server.url, question) is Outcome.ALLOWED
    assert len(server.requests) == 1


def test_a_proxy_that_cant_be_used(proxied: Callable[[str], None]) -> None:
    for proxy in ("gopher://127.0.0.1", "socks5://127.0.0.1"):
        proxied(proxy)
        with pytest.raises(StartError, match="-verify-client-url: the proxy in the environment"):
            AdmissionURL("http://control.test/verify")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    return context


async def test_the_roots_of_the_bundle_count(
    start_tcp: StartTCP,
    question: Question,
    tmp_path: Path,
    authority: trustme.CA,
    server_context: ssl.SSLContext,
) -> None:
    server = await start_tcp(always(YES), server_context)
    bundle = tmp_path / "bundle.pem"
    url = server.url.replace("http:", "https:")
    outcomes = []
    for root in (authority, trustme.CA(key_type=trustme.KeyType.ECDSA)):
        root.cert_pem.write_to_path(bundle)
        async with AdmissionURL(url, ca_bundle=bundle) as source:
            outcomes.append(await source.ask(question))
        assert len(server.requests) == 1
    async with AdmissionURL(url) as source:
        outcomes.append(await source.ask(question))
    assert [one.outcome for one in outcomes] == [
        Outcome.ALLOWED,
        Outcome.UNREACHABLE,
        Outcome.UNREACHABLE,
    ]
    for one in outcomes[1:]:
        assert "certificate that can't be verified" in one.reason
        assert "-verify-client-url-ca-bundle" in one.reason


async def test_a_certificate_for_another_name(
    start_tcp: StartTCP,
    question: Question,
    tmp_path: Path,
    authority: trustme.CA,
    server_context: ssl.SSLContext,
) -> None:
    server = await start_tcp(always(YES), server_context)
    bundle = tmp_path / "bundle.pem"
    authority.cert_pem.write_to_path(bundle)
    url = f"https://localhost:{server.port}/verify"
    async with AdmissionURL(url, ca_bundle=bundle) as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "ostname mismatch" in answer.reason


async def test_plain_http_where_tls_was_meant_and_the_other_way_round(
    start_tcp: StartTCP, question: Question, server_context: ssl.SSLContext
) -> None:
    plain, secure = await start_tcp(always(YES)), await start_tcp(always(YES), server_context)
    assert await outcome(secure.url, question) is Outcome.UNKNOWN
    plain.scope.cancel()  # It waits for the end of a line in what it takes for a request.
    url = plain.url.replace("http:", "https:")
    found = await outcome(url, question, patience=SHORT)
    assert found in {Outcome.LATE, Outcome.UNREACHABLE}


@pytest.mark.parametrize("refused", [False, True])
async def test_https_goes_through_a_tunnel(
    start_tcp: StartTCP,
    question: Question,
    nursery: trio.Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("control.test", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "bundle.pem")
    server = await start_tcp(always(YES), context)
    heads: list[bytes] = []

    async def tunnel(client: trio.SocketStream) -> None:
        heads.append(bytes(await client.receive_some()))
        if refused:
            await client.send_all(response(407))
            return
        await client.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        there = await trio.open_tcp_stream("127.0.0.1", server.port)

        async def copy(source: trio.SocketStream, to: trio.SocketStream) -> None:
            async for data in source:
                await to.send_all(data)
            tunnels.cancel_scope.cancel()

        async with client, there, trio.open_nursery() as tunnels:
            tunnels.start_soon(copy, client, there)
            tunnels.start_soon(copy, there, client)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, tunnel, [listener])
    port = listener.socket.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}".replace("127", "user:secret@127"))
    monkeypatch.setenv("no_proxy", "other.test")
    url = f"https://control.test:{server.port}/verify"
    async with AdmissionURL(url, ca_bundle=tmp_path / "bundle.pem") as source:
        answers = [await source.ask(question) for _ in range(2)]
    where = f"control.test:{server.port}"
    head = (
        f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n"
        f"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
    )
    if refused:
        assert [answer.outcome for answer in answers] == [Outcome.UNREACHABLE] * 2
        assert answers[0].reason == f"{where} can't be asked (407 whatever)"
        assert heads == [head.encode()] * 2
    else:
        assert [answer.outcome for answer in answers] == [Outcome.ALLOWED] * 2
        assert heads == [head.encode()]
        assert [request.target for request in server.requests] == ["/verify"] * 2


def test_what_is_secret_in_a_url_does_not_show() -> None:
    url = URL.parse("https://user:s3cret@Control.test:443/a%20b?token=s3cret")
    assert url.authority == "control.test"
    assert (url.path, url.target) == ("/a b", "/a%20b?token=s3cret")
    assert "s3cret" not in repr(url)


async def test_a_connection_is_not_kept_for_long(
    start_tcp: StartTCP, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_tcp(always(YES))
    async with AdmissionURL(server.url) as source:
        for seconds in (60.0, -1.0, 60.0):
            monkeypatch.setattr("derp.net.httpclient.IDLE_SECONDS", seconds)
            assert (await source.ask(question)).outcome is Outcome.ALLOWED
    assert (len(server.requests), server.connections) == (3, 2)


@pytest.mark.parametrize(
    ("authorization", "place", "expected"),
    [
        ("Bearer token", "/there", "Bearer token"),
        ("Bearer token", "http://user:other@127.0.0.1:{port}/there", "Bearer token"),
        ("Bearer token", "http://user:other@127.0.0.2:{port}/there", None),
        ("", "/there", "Basic dXNlcjpzZWNyZXQ="),
        ("", "http://127.0.0.2:{port}/there", None),
        ("", "http://user:other@127.0.0.2:{port}/there", "Basic dXNlcjpvdGhlcg=="),
    ],
)
async def test_what_authorization_goes_along_with_a_redirect(
    start_tcp: StartTCP, question: Question, authorization: str, place: str, expected: str | None
) -> None:
    server = await start_tcp(
        lambda request: (
            response(307, Location=place.format(port=server.port))
            if request.target == "/verify"
            else YES
        )
    )
    url = server.url.replace("//", "//user:secret@")
    async with AdmissionURL(url, authorization=authorization) as source:
        assert (await source.ask(question)).outcome is Outcome.ALLOWED
    assert server.requests[1].headers.get("authorization") == expected


@pytest.mark.parametrize("text", [None, "", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_bundle_that_cant_be_used(tmp_path: Path, text: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    with pytest.raises(StartError, match=f"-verify-client-url-ca-bundle {bundle}: ") as caught:
        AdmissionURL("https://control.test/", ca_bundle=bundle)
    assert "\n" not in str(caught.value)


def test_a_directory_for_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="-verify-client-url-ca-bundle"):
        AdmissionURL("https://control.test/", ca_bundle=tmp_path)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/", "http://x:99999/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UsageError, match="-verify-client-url: not a URL"):
        AdmissionURL(url)


@pytest.mark.parametrize("url", [f"http://{'a' * 64}.test/", "http://a..test/"])
async def test_urls_that_cant_be_asked(question: Question, url: str) -> None:
    assert await outcome(url, question) in {Outcome.UNKNOWN, Outcome.UNREACHABLE}


@pytest.mark.slow
async def test_many_questions_side_by_side(start_tcp: StartTCP, question: Question) -> None:
    server = await start_tcp(always(YES))
    outcomes = []
    async with AdmissionURL(server.url) as source:

        async def ask() -> None:
            outcomes.append((await source.ask(question)).outcome)

        async with trio.open_nursery() as asking:
            for _ in range(200):
                asking.start_soon(ask)
        with trio.fail_after(5):
            while server.open > 16:
                await trio.lowlevel.checkpoint()
    assert outcomes == [Outcome.ALLOWED] * 200


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_what_we_lack_ourselves_is_no_reason_to_admit(
    question: Question, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(number, "lacking")

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    async with AdmissionURL("http://127.0.0.1:1/verify") as source:
        answer = await source.ask(question)
    assert answer.outcome is Outcome.NO_ROOM
    assert "lacking" in answer.reason
