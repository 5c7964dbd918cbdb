"""tailscaled's LocalAPI, played by servers on real unix sockets."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from derp.admission.model import Outcome, Question
from derp.admission.tailscaled import Tailscaled
from tests.admission.conftest import (
    NODE,
    SHORT,
    Answer,
    Close,
    Forever,
    Hang,
    Request,
    StartUnix,
    always,
    chunked,
    response,
)

ZERO = f"nodekey:{bytes(32).hex()}"
OTHER = f"nodekey:{'ab' * 32}"
# As tailscaled 1.102 says it.
KNOWN = response(200, '{\n\t"Node": {"ID": 1},\n\t"UserProfile": {"ID": 2}\n}')
NO_MATCH = response(404, "no match for IP:port\n", Content_Type="text/plain; charset=utf-8")
TOO_OLD = response(400, "invalid 'addr' parameter\n")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="derper-") as name:
        yield Path(name)


def status(own: object = OTHER, state: object = "Running", **more: object) -> bytes:
    value = {"BackendState": state, "Self": {"PublicKey": own}, "Peer": None, **more}
    return response(200, json.dumps(value))


def local_api(whois: Answer, status: Answer = NO_MATCH) -> Callable[[Request], Answer]:
    return lambda request: whois if request.target.startswith("/localapi/v0/whois?") else status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tailscaled.sock"


async def test_a_node_of_the_tailnet_is_allowed(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    server = await start_unix(path, local_api(KNOWN))
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is Outcome.ALLOWED
    assert [(one.method, one.target) for one in server.requests] == [
        ("GET", f"/localapi/v0/whois?addr={NODE}")
    ]
    headers = server.requests[0].headers
    assert headers["host"] == "local-tailscaled.sock"
    assert headers["tailscale-cap"].isdecimal()
    # tailscaled refuses whatever looks like a browser.
    assert not {"origin", "referer"} & set(headers)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (status(own=NODE), Outcome.ALLOWED),
        (status(own=NODE, state="Starting"), Outcome.ALLOWED),
        (status(), Outcome.REFUSED),
        (status(Peer={OTHER: {}}), Outcome.REFUSED),
        (response(200, "{}"), Outcome.REFUSED),
        (status(own=NODE.upper()), Outcome.REFUSED),
        (status(own=[NODE]), Outcome.REFUSED),
        (response(200, json.dumps({"Self": None})), Outcome.REFUSED),
        (response(200, json.dumps({"Self": NODE})), Outcome.REFUSED),
        (status(state="NeedsLogin", own=ZERO), Outcome.UNKNOWN),
        (status(state="Stopped"), Outcome.UNKNOWN),
        (status(state="NoState"), Outcome.UNKNOWN),
        (response(500), Outcome.UNKNOWN),
        (response(404), Outcome.UNKNOWN),
        (response(200, "[]"), Outcome.UNKNOWN),
    ],
)
async def test_who_is_not_known_may_be_the_machine_itself(
    start_unix: StartUnix, path: Path, question: Question, said: bytes, outcome: Outcome
) -> None:
    server = await start_unix(path, local_api(NO_MATCH, said))
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is outcome
    assert [one.target for one in server.requests][1:] == ["/localapi/v0/status?peers=false"]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (status(own=NODE), Outcome.ALLOWED),
        (status(Peer={OTHER: {}, NODE: {"PublicKey": NODE}}), Outcome.ALLOWED),
        (status(Peer={OTHER: {"HostName": NODE}}), Outcome.REFUSED),
        (status(Peer=[NODE]), Outcome.REFUSED),
        (status(Peer=None), Outcome.REFUSED),
        (status(Peer=None, state="NeedsLogin"), Outcome.UNKNOWN),
        (response(403), Outcome.UNKNOWN),
    ],
)
async def test_an_old_tailscaled_tells_all_nodes(
    start_unix: StartUnix, path: Path, question: Question, said: bytes, outcome: Outcome
) -> None:
    server = await start_unix(path, local_api(TOO_OLD, said))
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is outcome
    assert [one.target for one in server.requests][1:] == ["/localapi/v0/status"]


@pytest.mark.parametrize("whois", [NO_MATCH, TOO_OLD])
@pytest.mark.parametrize("state", ["NeedsLogin", "Running"])
async def test_nobody_owns_the_key_of_a_tailscaled_without_one(
    start_unix: StartUnix, path: Path, whois: bytes, state: str
) -> None:
    await start_unix(path, local_api(whois, status(own=ZERO, state=state)))
    answer = await Tailscaled(path).ask(Question(bytes(32), "192.0.2.1"))
    assert answer.outcome is not Outcome.ALLOWED


async def test_a_logged_out_tailscaled_is_named_as_the_cause(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    await start_unix(path, local_api(NO_MATCH, status(own=ZERO, state="NeedsLogin\n" * 99)))
    answer = await Tailscaled(path).ask(question)
    assert "'tailscale up'" in answer.reason
    assert "\n" not in answer.reason
    assert len(answer.reason) < 200


async def test_a_restarted_tailscaled_is_asked_at_its_new_socket(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    source = Tailscaled(path)
    first = await start_unix(path, local_api(KNOWN))
    assert (await source.ask(question)).outcome is Outcome.ALLOWED
    first.scope.cancel()
    await trio.Path(path).unlink()
    assert (await source.ask(question)).outcome is Outcome.UNREACHABLE
    second = await start_unix(path, local_api(KNOWN))
    assert (await source.ask(question)).outcome is Outcome.ALLOWED
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_socket_that_was_left_behind_by_a_dead_tailscaled(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    server = await start_unix(path, local_api(KNOWN))
    server.scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "nobody listens there" in answer.reason
    assert "mount the directory" in answer.reason


async def test_no_socket(path: Path, question: Question) -> None:
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert f"-socket {path}: no such socket" in answer.reason
    assert "mount the directory" in answer.reason


async def test_a_file_or_a_directory_in_place_of_the_socket(path: Path, question: Question) -> None:
    await trio.Path(path).write_text("not a socket")
    for wrong in (path, path.parent):
        answer = await Tailscaled(wrong).ask(question)
        assert answer.outcome is Outcome.UNREACHABLE
        assert f"-socket {wrong}: nobody listens there" in answer.reason


async def test_a_path_below_a_file(path: Path, question: Question) -> None:
    await trio.Path(path).write_text("not a directory")
    answer = await Tailscaled(path / "socket").ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert os.strerror(errno.ENOTDIR) in answer.reason


async def test_a_path_too_long_for_a_socket(tmp_path: Path, question: Question) -> None:
    answer = await Tailscaled(tmp_path / ("x" * 200)).ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "too long" in answer.reason


async def test_a_socket_that_may_not_be_opened(
    start_unix: StartUnix, path: Path, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may open any, so that the operating system's refusal is played."""

    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    await start_unix(path, local_api(KNOWN))
    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "permission denied; run derper as a user who may" in answer.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        (Hang(),),
        (b"HTTP/1.1 200 OK\r\n", Hang()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Hang()),
        (chunked(b"{"), Hang()),
        (chunked(b"{}"), Hang()),
        (chunked(), Forever(b"1\r\n \r\n")),
    ],
)
async def test_slow_is_given_up_and_nothing_stays_open(
    start_unix: StartUnix, path: Path, question: Question, said: Answer
) -> None:
    server = await start_unix(path, local_api(said))
    answer = await Tailscaled(path, timeout=SHORT).ask(question)
    assert answer.outcome is Outcome.LATE
    assert "no answer within 0.2 s" in answer.reason
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.slow
async def test_both_requests_share_one_deadline(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    server = await start_unix(path, local_api(NO_MATCH, (Hang(),)))
    answer = await Tailscaled(path, timeout=SHORT).ask(question)
    assert answer.outcome is Outcome.LATE
    assert len(server.requests) == 2


async def test_who_is_cancelled_leaves_nothing_open(
    start_unix: StartUnix, path: Path, question: Question, nursery: trio.Nursery
) -> None:
    server = await start_unix(path, local_api((Hang(),)))
    async with trio.open_nursery() as asking:
        asking.start_soon(Tailscaled(path).ask, question)
        await server.asked.wait()
        asking.cancel_scope.cancel()
    with trio.fail_after(5):
        await server.left.wait()
    assert server.connections == 1


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ((Close(),), "no whole HTTP answer"),
        ((b"HTTP/1.1 200 OK\r\n", Close()), "no whole HTTP answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Close()), "no whole HTTP answer"),
        ((chunked(b"{}"), Close()), "no whole HTTP answer"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n", Close()), "no whole HTTP answer"),
        ((bytes(range(256)) * 8, Close()), "no whole HTTP answer"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000, Hang()), "no whole HTTP answer"),
        (response(403, "whois access denied\n"), "status 403; run derper as root"),
        (response(500), "status 500"),
        (response(400, "missing 'addr' parameter"), "status 400"),
        (response(400, "invalid nodekey in 'addr' parameter"), "status 400"),
        (response(302, Location="/elsewhere"), "status 302"),
        (response(204), "status 204"),
        (response(200), "other than a JSON object"),
        (response(200, "null"), "other than a JSON object"),
        (response(200, "[]"), "other than a JSON object"),
        (response(200, "<html>"), "other than a JSON object"),
        (response(200, '{"Node": '), "other than a JSON object"),
        (response(200, b"{\xff}"), "other than a JSON object"),
        (response(200, "[" * 100_000), "other than a JSON object"),
        (response(200, '{"x": ' + "9" * 9999 + "}"), "other than a JSON object"),
        (response(200, b'{"x": "' + b"x" * (10 << 20) + b'"}'), "more than 1 MiB"),
        ((chunked(), Forever(b"10000\r\n" + b" " * 65536 + b"\r\n")), "more than 1 MiB"),
    ],
)
async def test_nonsense_is_no_answer(
    start_unix: StartUnix, path: Path, question: Question, said: Answer, hint: str
) -> None:
    server = await start_unix(path, local_api(said))
    answer = await Tailscaled(path).ask(question)
    assert answer.outcome is Outcome.UNKNOWN
    assert hint in answer.reason
    assert "\n" not in answer.reason
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.parametrize(
    "said",
    [
        (b"HTTP/1.0 200 OK\r\n\r\n{}", Close()),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + response(200, "{}"),),
        (*(KNOWN[i : i + 1] for i in range(len(KNOWN))),),
        (chunked(b"{", b'"Node":', b"{}}") + b"0\r\n\r\n",),
        response(200, "{}", Set_Cookie="a=b"),
    ],
)
async def test_every_form_of_http_will_do(
    start_unix: StartUnix, path: Path, question: Question, said: Answer
) -> None:
    await start_unix(path, local_api(said))
    assert (await Tailscaled(path).ask(question)).outcome is Outcome.ALLOWED


async def test_no_proxy_stands_in_between(
    start_unix: StartUnix, path: Path, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    await start_unix(path, always(KNOWN))
    assert (await Tailscaled(path).ask(question)).outcome is Outcome.ALLOWED


async def test_many_are_asked_about_side_by_side(
    start_unix: StartUnix, path: Path, question: Question
) -> None:
    server = await start_unix(path, local_api(KNOWN))
    source = Tailscaled(path)
    outcomes = []

    async def ask() -> None:
        outcomes.append((await source.ask(question)).outcome)

    async with trio.open_nursery() as asking:
        for _ in range(100):
            asking.start_soon(ask)
    assert outcomes == [Outcome.ALLOWED] * 100
    assert server.connections == 100
