"""Who may steer, and with what commands."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.message import Request, parse_request
from derp.http.steer import (
    ACTIONS,
    COMMANDS,
    COMMANDS_BURST,
    MAX_ADDRESSES,
    MAX_WRONG,
    WINDOW,
    Operator,
    parse_command,
)
from derp.wire.control import Command

TOKEN = "correct-horse-battery"
KEY = bytes(range(32))
KEY_TEXT = f"nodekey:{KEY.hex()}"
JSON = (b"content-type", b"application/json")


def request(
    *headers: tuple[bytes, bytes],
    method: str = "POST",
    token: str | None = TOKEN,
    remote: str = "127.0.0.1",
    host: str = "relay.example:8443",
    form: tuple[bytes, bytes] = JSON,
) -> Request:
    fields = [(b"host", host.encode()), form, *headers]
    if token is not None:
        fields.append((b"authorization", f"Bearer {token}".encode()))
    return parse_request(method.encode(), b"/debug/steer", b"1.1", fields, remote)


@attrs.define
class Post:
    """An Operator, its clock, and what it has complained of."""

    now: float = 0.0
    token: bytes = TOKEN.encode()
    wrong: list[str] = attrs.field(factory=list)
    operator: Operator = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.operator = Operator(lambda: self.token, lambda: self.now, self.wrong.append)

    def status(self, asked: Request) -> int:
        """Return the status of the refusal; 200 for none."""
        answer = self.operator.refusal(asked)
        return 200 if answer is None else answer.status


@pytest.fixture
def post() -> Post:
    return Post()


def test_the_token_is_enough_for_a_program(post: Post) -> None:
    assert post.status(request()) == 200
    assert post.wrong == []


def test_orders_have_a_rate(post: Post) -> None:
    answers = [post.status(request()) for _ in range(COMMANDS_BURST + 1)]
    assert answers == [200] * COMMANDS_BURST + [429]
    post.now += 1 / COMMANDS
    assert [post.status(request()) for _ in range(2)] == [200, 429]
    assert post.wrong == []


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "",
        TOKEN[:-1],
        f"{TOKEN}x",
        TOKEN.upper(),
        "\xe9" * 20,
    ],
)
def test_no_other_is(post: Post, shown: str | None) -> None:
    assert post.status(request(token=shown)) == 401
    assert post.wrong == ["127.0.0.1"]


@pytest.mark.parametrize("value", [TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer"])
def test_no_other_form_is(post: Post, value: str) -> None:
    assert post.status(request((b"authorization", value.encode()), token=None)) == 401


def test_without_a_token_nobody_may(post: Post) -> None:
    post.token = b""
    assert not post.operator.has_token
    for shown in (None, "", TOKEN):
        assert post.status(request(token=shown)) == 403
    assert Operator().refusal(request(token="")).status == 403


def test_a_new_token_counts_at_once(post: Post) -> None:
    post.token = b"another-token-of-ours"
    assert post.status(request()) == 401
    assert post.status(request(token="another-token-of-ours")) == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
def test_only_by_post(post: Post, method: str) -> None:
    answer = post.operator.refusal(request(method=method))
    assert answer.status == 405
    assert ("Allow", "POST") in answer.headers
    # A browser that asks whether another site may (CORS) is not told so.
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"same-site")],
        [(b"sec-fetch-site", b"none")],
        [(b"origin", b"https://evil.example")],
        [(b"origin", b"null")],
        [(b"origin", b"https://relay.example")],
        [(b"origin", b"https://relay.example:8443.evil.example")],
        [(b"origin", b"https://relay.example:8443"), (b"origin", b"https://evil.example")],
        [(b"sec-fetch-site", b"same-origin"), (b"origin", b"https://evil.example")],
        [(b"sec-fetch-site", b"cross-site"), (b"origin", b"https://relay.example:8443")],
    ],
)
def test_not_from_another_site(post: Post, headers: list[tuple[bytes, bytes]]) -> None:
    assert post.status(request(*headers)) == 403
    # What another site has a browser send must not use up the operator's tries.
    assert post.status(request(*headers, token="wrong")) == 403
    assert post.wrong == []


def test_from_the_page_itself(post: Post) -> None:
    own = (b"origin", b"HTTPS://Relay.Example:8443")
    assert post.status(request(own, (b"sec-fetch-site", b"same-origin"))) == 200
    assert post.status(request(own)) == 200


@pytest.mark.parametrize(
    "form", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b""]
)
def test_not_in_a_form_that_any_page_can_send(post: Post, form: bytes) -> None:
    assert post.status(request(form=(b"content-type", form))) == 415


def test_json_with_parameters(post: Post) -> None:
    form = (b"content-type", b"Application/JSON; charset=utf-8")
    assert post.status(request(form=form)) == 200


def test_tries_are_bounded(post: Post) -> None:
    for _ in range(MAX_WRONG):
        post.now += 1
        assert post.status(request(token="wrong")) == 401
    answer = post.operator.refusal(request(token="wrong"))
    assert answer.status == 429
    assert ("Retry-After", f"{WINDOW - MAX_WRONG + 1:.0f}") in answer.headers
    assert len(post.wrong) == MAX_WRONG
    assert post.status(request(token="wrong", remote="100.64.0.9")) == 401
    # Nobody locks out the one who has it.
    assert post.status(request()) == 200
    post.now = WINDOW
    assert post.status(request(token="wrong")) == 429
    post.now = WINDOW + 1
    assert post.status(request(token="wrong")) == 401


def test_a_right_token_is_no_try(post: Post) -> None:
    for _ in range(2 * MAX_WRONG):
        post.now += 1 / COMMANDS
        assert post.status(request()) == 200
    for _ in range(MAX_WRONG - 1):
        assert post.status(request(token="wrong")) == 401
    assert post.status(request()) == 200


def test_memory_is_bounded(post: Post) -> None:
    for number in range(3 * MAX_ADDRESSES):
        assert post.status(request(token="wrong", remote=f"fd7a:115c:a1e0::{number:x}")) == 401
    assert len(post.operator._wrong) == MAX_ADDRESSES


@pytest.mark.parametrize("action", ACTIONS)
def test_orders(action: str) -> None:
    body = json.dumps({"key": KEY_TEXT, "action": action}).encode()
    assert parse_command(body) == Command(action, KEY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"[" * 1024,
        b"\xff\xfe",
        json.dumps({"action": "kick"}).encode(),
        json.dumps({"action": "kick", "key": KEY_TEXT, "more": 1}).encode(),
        json.dumps({"action": "burn", "key": KEY_TEXT}).encode(),
        json.dumps({"action": ["kick"], "key": KEY_TEXT}).encode(),
        json.dumps({"action": {}, "key": KEY_TEXT}).encode(),
        json.dumps({"action": "kick", "key": 7}).encode(),
        json.dumps({"action": "kick", "key": KEY_TEXT[:-1]}).encode(),
        json.dumps({"action": "kick", "key": KEY_TEXT.upper()}).encode(),
    ],
)
def test_what_is_no_order(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"want \{"):
        parse_command(body)


@given(
    st.binary(max_size=100)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"want \{"):
        parse_command(body)
