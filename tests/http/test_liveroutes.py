"""The paths of the live page."""

import ipaddress
import json
from collections.abc import Callable
from contextlib import aclosing

import pytest

from derp.http.access import DebugAccess
from derp.http.assets import ASSETS
from derp.http.backend import Backend
from derp.http.livepage import PageOptions
from derp.http.message import Answer, Later, Posted, Request, Response, Stream, parse_request
from derp.http.pages import BROWSER_HEADERS
from derp.http.routes import route, route_plain
from derp.http.steer import MAX_BODY, Operator, Outcome
from derp.wire.control import Command
from tests.http.sites import make_backend

TOKEN = "correct-horse-battery"
KEY = bytes(range(32))
EVENTS = (b"accept", b"text/event-stream")
BODY = json.dumps({"action": "kick", "key": f"nodekey:{KEY.hex()}"}).encode()


def request(
    target: str, method: str = "GET", *headers: tuple[bytes, bytes], remote: str = "127.0.0.1"
) -> Request:
    fields = [(b"host", b"derp.example"), *headers]
    return parse_request(method.encode(), target.encode(), b"1.1", fields, remote)


async def response(answer: Answer) -> Response:
    if isinstance(answer, Later):
        return answer.show(await answer.ask())
    assert isinstance(answer, Response)
    return answer


async def look(site: Backend, target: str) -> str:
    return (await response(route(site, request(target)))).body.decode()


@pytest.fixture
def steered() -> Backend:
    return make_backend(operator=Operator(TOKEN.encode))


async def test_the_page(site: Backend) -> None:
    answer = await response(route(site, request("/debug/")))
    assert answer.body.decode() == repr(PageOptions(hostname="derp.example", sort="total"))
    assert ("Content-Type", "text/html; charset=utf-8") in answer.headers
    assert set(BROWSER_HEADERS) <= set(answer.headers)


@pytest.mark.parametrize(
    ("query", "sort"),
    [
        ("sort=name", "name"),
        ("sort=nonsense", "total"),
        ("sort=now&sort=name", "now"),
        ("x=", "total"),
    ],
)
async def test_an_order_of_the_clients(site: Backend, query: str, sort: str) -> None:
    assert await look(site, f"/debug/?{query}") == repr(
        PageOptions(hostname="derp.example", sort=sort)
    )
    answer = route(site, request(f"/debug/events?{query}", "GET", EVENTS))
    assert isinstance(answer, Stream)
    async with aclosing(answer.chunks()) as chunks:
        assert await anext(chunks) == sort.encode()


async def test_the_key_goes_with_what_the_page_asks_for() -> None:
    site = make_backend(debug_access=DebugAccess(key=lambda: b"a&b\xff"))
    answer = route(site, request("/debug/?debugkey=a%26b%FF&sort=now", remote="192.0.2.1"))
    shown = (await response(answer)).body.decode()
    assert shown == repr(
        PageOptions(hostname="derp.example", sort="now", query="debugkey=a%26b%FF")
    )
    for path in ("/debug/live.js", "/debug/events", "/debug/?sort=now"):
        mark = "&" if "?" in path else "?"
        asked = request(f"{path}{mark}debugkey=a%26b%FF", "GET", EVENTS, remote="192.0.2.1")
        assert not isinstance(route(site, asked), Response) or path in ASSETS
        assert (await response(route(site, request(path, remote="192.0.2.1")))).status == 403


def test_events_are_a_stream(site: Backend) -> None:
    answer = route(site, request("/debug/events", "GET", EVENTS))
    assert isinstance(answer, Stream)
    assert ("Content-Type", "text/event-stream; charset=utf-8") in answer.headers
    assert ("Cache-Control", "no-store") in answer.headers


@pytest.mark.parametrize("path", ["/debug/events", "/debug/traffic"])
def test_no_other_site_holds_a_stream(site: Backend, path: str) -> None:
    for site_of_page, status in (
        ("cross-site", 403),
        ("same-site", 403),
        ("same-origin", 0),
        ("none", 0),
    ):
        fetched = (b"sec-fetch-site", site_of_page.encode())
        answer = route(site, request(path, "GET", EVENTS, fetched))
        assert isinstance(answer, Response) == bool(status)
        assert not isinstance(answer, Response) or answer.status == status
    others = (b"origin", b"http://other.example")
    for asked, status in (
        (request(path, "GET", EVENTS, others), 403),
        (request(path, "POST", EVENTS), 405),
        (request(path, "HEAD", EVENTS), 405),
    ):
        answer = route(site, asked)
        assert isinstance(answer, Response)
        assert answer.status == status


def test_no_image_holds_a_stream(site: Backend) -> None:
    """Where a browser does not say which site it asks for, by plain HTTP."""
    for accepted in (b"image/avif,*/*;q=0.8", b"*/*"):
        answer = route(site, request("/debug/events", "GET", (b"accept", accepted)))
        assert isinstance(answer, Response)
        assert answer.status == 406


@pytest.mark.parametrize("path", ASSETS)
def test_files(site: Backend, path: str) -> None:
    answer = route(site, request(path))
    assert isinstance(answer, Response)
    assert answer.body == ASSETS[path].content
    assert set(BROWSER_HEADERS) <= set(answer.headers)


@pytest.mark.parametrize("path", [*ASSETS, "/debug/", "/debug/events", "/debug/steer"])
def test_none_is_for_strangers(steered: Backend, path: str) -> None:
    for method in ("GET", "POST"):
        headers = (b"authorization", f"Bearer {TOKEN}".encode())
        answer = route(steered, request(path, method, headers, remote="192.0.2.1"))
        assert isinstance(answer, Response)
        assert answer.status == 403
        assert answer.body.startswith(b"debug pages are for")


def command(*headers: tuple[bytes, bytes]) -> Request:
    form = (b"content-type", b"application/json")
    return request(
        "/debug/steer", "POST", form, (b"authorization", f"Bearer {TOKEN}".encode()), *headers
    )


async def test_a_command_is_done(steered: Backend) -> None:
    answer = route(steered, command())
    assert isinstance(answer, Posted)
    assert answer.most == MAX_BODY
    done = await response(answer.reply(BODY))
    assert (done.status, done.body) == (200, b"kick by 127.0.0.1\n")
    assert ("Content-Type", "text/plain; charset=utf-8") in done.headers


async def test_a_command_that_can_not_be_done() -> None:
    seen = []

    async def fail(command: Command, remote: str) -> Outcome:
        seen.append((command, remote))
        return Outcome(done=False, said="no such client")

    site = make_backend(operator=Operator(TOKEN.encode), steer=fail)
    answer = route(site, command())
    assert isinstance(answer, Posted)
    done = await response(answer.reply(BODY))
    assert (done.status, done.body) == (409, b"no such client\n")
    assert seen == [(Command("kick", KEY), "127.0.0.1")]


async def test_what_is_no_command(steered: Backend) -> None:
    answer = route(steered, command())
    assert isinstance(answer, Posted)
    done = await response(answer.reply(b"kick"))
    assert done.status == 400
    assert done.body.startswith(b"want {")


def test_who_may_not_sends_no_body(steered: Backend, site: Backend) -> None:
    """It is refused by its head, so that nothing of its body is kept."""
    crossed = command((b"sec-fetch-site", b"cross-site"))
    refused = (steered, crossed), (site, command()), (steered, request("/debug/steer"))
    for source, asked in refused:
        assert isinstance(route(source, asked), Response)


async def test_the_page_says_whether_there_are_buttons(steered: Backend) -> None:
    assert "locked=''" in await look(steered, "/debug/")


def with_key(key: Callable[[], bytes] = lambda: b"k") -> Backend:
    return make_backend(
        debug_access=DebugAccess(["derp.example"], key=key), operator=Operator(TOKEN.encode)
    )


async def test_who_has_the_key_is_told_that_it_steers_nothing() -> None:
    answer = route(with_key(), request("/debug/?debugkey=k", remote="192.0.2.1"))
    assert "The debug key is for looking only" in (await response(answer)).body.decode()
    here = route(with_key(), request("/debug/?debugkey=k"))
    assert "locked=''" in (await response(here)).body.decode()


@pytest.mark.parametrize("path", ["/debug/events", "/debug/traffic"])
def test_a_stream_is_for_whoever_has_access_still(path: str) -> None:
    keys = [b"k"]
    site = with_key(lambda: keys[-1])
    theirs = route(site, request(f"{path}?debugkey=k", "GET", EVENTS, remote="192.0.2.1"))
    own = route(site, request(path, "GET", EVENTS))
    assert isinstance(theirs, Stream)
    assert isinstance(own, Stream)
    assert theirs.is_allowed()
    keys.append(b"another")
    assert not theirs.is_allowed()
    assert own.is_allowed()


class TestInClear:
    """The plain port beside TLS, over the internet: what is asked there, others may read."""

    STRANGER = "8.8.8.8"
    PATHS = ("/debug/", "/debug/events", "/debug/varz", "/debug/traffic")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("key", ["k", "wrong", ""])
    async def test_no_key_opens_anything(self, path: str, key: str) -> None:
        """Right or wrong: the answer does not tell."""
        site = with_key().in_clear()
        asked = request(f"{path}?debugkey={key}", "GET", EVENTS, remote=self.STRANGER)
        answer = await response(route_plain(site, asked))
        assert answer.status == 403
        assert answer.body.startswith(b"a debug key is for https only, and this one came without")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("remote", ["127.0.0.1", "::1", "100.64.0.1", "172.17.0.1"])
    def test_a_key_that_nobody_else_could_read_opens_all(self, path: str, remote: str) -> None:
        """A proxy on this machine, a network of one's own, the tailnet's tunnel."""
        headers = EVENTS, (b"x-forwarded-for", b"192.0.2.7")
        asked = request(f"{path}?debugkey=k", "GET", *headers, remote=remote)
        assert not isinstance(route_plain(with_key().in_clear(), asked), Response)

    def test_a_key_through_a_known_proxy_opens_all(self) -> None:
        """Who asks it may have asked by https."""
        asked = request("/debug/?debugkey=k", remote=self.STRANGER).sent_by(
            self.STRANGER, "-proxies"
        )
        assert not isinstance(route_plain(with_key().in_clear(), asked), Response)

    async def test_the_operators_token_is_neither_asked_for_nor_taken(self) -> None:
        """Not even from an address that may look."""
        networks = [ipaddress.ip_network("8.0.0.0/8")]
        access = DebugAccess(["derp.example"], networks=networks)
        site = make_backend(debug_access=access, operator=Operator(TOKEN.encode))
        clear = site.in_clear()
        shown = (await response(route_plain(clear, request("/debug/", remote=self.STRANGER)))).body
        assert b"The operator's token is for https only" in shown
        headers = (
            (b"authorization", f"Bearer {TOKEN}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(BODY)),
        )
        steered = request("/debug/steer", "POST", *headers, remote=self.STRANGER)
        answer = await response(route_plain(clear, steered))
        assert (answer.status, answer.body) == (
            403,
            b"The operator's token is for https only: ask by https.\n",
        )
        assert isinstance(route(site, steered), Posted)
