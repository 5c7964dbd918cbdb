"""POST /debug/steer: the commands of the live page's buttons, and who may give them. Sans-I/O.

    POST /debug/steer
    Content-Type: application/json
    Authorization: Bearer TOKEN

    {"action": "kick", "key": "nodekey:…"}

The operator's token goes with each request, in a header that no other site can have a browser send:
for that, as for a body of JSON, a browser first asks the relay (OPTIONS, as CORS has it), and is
not told that it may. Origin and Sec-Fetch-Site are checked besides. A wrong token is compared in
constant time; after MAX_WRONG of them in WINDOW, more from that address are not logged. The right
one is taken all the same, so that nobody behind the same address locks its owner out: it is too
long to be guessed.
"""

import hmac
import json
import math
from collections.abc import Callable
from typing import Final

import attrs

from derp.http.message import Request, Response
from derp.relay.tokenbucket import TokenBucket
from derp.wire.control import Command
from derp.wire.keys import KeyFormatError, parse_node_public

MAX_BODY: Final = 1024
"""Bytes of a command."""
ACTIONS: Final = ("kick", "deny", "allow")
MAX_WRONG: Final = 10
"""Wrong tokens from one address in WINDOW."""
WINDOW: Final = 60.0
"""Seconds."""
COMMANDS: Final = 10.0
"""Commands a second with the right token, in the long run."""
COMMANDS_BURST: Final = 20
MAX_ADDRESSES: Final = 1024
"""Addresses that are remembered; the one with the first wrong token is forgotten first."""

_WANT: Final = 'want {"action": "kick", "key": "nodekey:…"}; deny and allow are actions, too'


@attrs.frozen
class Outcome:
    """The outcome of a command."""

    done: bool
    said: str
    """One line: what was done, or why it was not."""


def parse_command(body: bytes) -> Command:
    """Read the body of a request. Raises ValueError, which says what would be right."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(_WANT) from None
    if not isinstance(message, dict) or message.keys() != {"action", "key"}:
        raise ValueError(_WANT)
    action, key = message["action"], message["key"]
    if action not in ACTIONS or not isinstance(key, str):
        raise ValueError(_WANT)
    try:
        return Command(action, parse_node_public(key))
    except KeyFormatError as error:
        raise ValueError(f"{error}; {_WANT}") from None


@attrs.define
class _Wrong:
    """The wrong tokens from one address."""

    since: float
    count: int = 0


class Operator:
    """The operator, recognised by the token in a request's head."""

    def __init__(
        self,
        token: Callable[[], bytes] = bytes,
        clock: Callable[[], float] = float,
        on_wrong: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`token` returns the current token, empty for none; `clock` seconds.

        `on_wrong` is called with the address that has shown a wrong token.
        """
        self._token = token
        self._clock = clock
        self._on_wrong = on_wrong
        self._commands = TokenBucket(COMMANDS, COMMANDS_BURST, clock())
        self._wrong: dict[str, _Wrong] = {}
        """By address; the one whose window began first is first."""

    @property
    def has_token(self) -> bool:
        """Whether there is a token, so that anything can be steered."""
        return bool(self._token())

    def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that may steer nothing; None if it may."""
        return _wrong_form(request) or self._wrong_token(request) or self._too_many()

    def _wrong_token(self, request: Request) -> Response | None:
        token, now = self._token(), self._clock()
        if not token:
            return _refuse(403, "there is no operator's token: want -admin-token-file")
        scheme, _, shown = request.header(b"authorization").partition(" ")
        # The header has come as Latin-1.
        is_token = hmac.compare_digest(token, shown.strip().encode("latin-1"))
        if is_token and scheme.lower() == "bearer":
            return None
        if wait := self._wait(request.remote, now):
            return _refuse(429, "too many wrong tokens", ("Retry-After", str(math.ceil(wait))))
        self._note_wrong(request.remote, now)
        return _refuse(401, "this is not the operator's token", ("WWW-Authenticate", "Bearer"))

    def _too_many(self) -> Response | None:
        if self._commands.allow(self._clock()):
            return None
        return _refuse(429, "too many commands at once", ("Retry-After", "1"))

    def _wait(self, address: str, now: float) -> float:
        """Return for how many seconds one more wrong token from an address gets 429."""
        wrong = self._wrong.get(address)
        if wrong is not None and now - wrong.since >= WINDOW:
            del self._wrong[address]
            return 0.0
        if wrong is None or wrong.count < MAX_WRONG:
            return 0.0
        return wrong.since + WINDOW - now

    def _note_wrong(self, address: str, now: float) -> None:
        if address not in self._wrong and len(self._wrong) >= MAX_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        self._wrong.setdefault(address, _Wrong(now)).count += 1
        self._on_wrong(address)


def _wrong_form(request: Request) -> Response | None:
    if request.method != "POST":
        return _refuse(405, "want a POST", ("Allow", "POST"))
    if is_cross_site(request):
        return _refuse(403, "this comes from a page of another site")
    if _media_type(request) != "application/json":
        return _refuse(415, "want Content-Type: application/json")
    return None


def stream_refusal(request: Request) -> Response | None:
    """Return the answer to a request that may have no stream; None if it may.

    There are few streams of a kind at a time. Without this, any site that somebody with access
    visits could have the browser hold them all.
    """
    if request.method != "GET":
        return _refuse(405, "want a GET", ("Allow", "GET"))
    if is_cross_site(request):
        return _refuse(403, "this comes from a page of another site")
    return None


def is_cross_site(request: Request) -> bool:
    """Return whether a browser sends `request` for a page of another site.

    Browsers send Sec-Fetch-Site where they trust the connection, and Origin with each POST; other
    programs send neither.
    """
    site = request.header(b"sec-fetch-site")
    # "none": the user has typed the address, or opened a bookmark.
    typed = site == "none" and request.method == "GET"
    if site and site != "same-origin" and not typed:
        return True
    origins = [value for name, value in request.headers if name == b"origin"]
    own = request.host.lower().encode("latin-1")
    return any(origin.lower().partition(b"://")[2] != own for origin in origins)


def _media_type(request: Request) -> str:
    return request.header(b"content-type").partition(";")[0].strip().lower()


def _refuse(status: int, message: str, *headers: tuple[str, str]) -> Response:
    fixed = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return Response(status, (*headers, *fixed), f"{message}\n".encode())
