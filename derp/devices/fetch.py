"""The fetch of a list of devices from an API.

A redirect is not followed: the credential is for the API alone.
"""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Self

import trio

from certs.retryafter import parse_retry_after
from derp.devices import answers
from derp.devices.api import API, UNAUTHORIZED, OAuthClient
from derp.devices.jsonarray import AnswerFormError, ArrayReader
from derp.devices.model import Devices
from derp.errors import ConnectFailed, DevicesFailed, ExchangeFailed, StartError
from derp.net import httpclient
from derp.net.httpclient import URL, Connection, Head
from derp.net.outgoing import explain

FETCH_TIMEOUT: Final = 30.0
"""Seconds for a list, the token included."""
MAX_BYTES: Final = 64 << 20
"""Bytes of the longest list: some 50,000 devices as Tailscale describes them."""
MAX_DEVICES: Final = 100_000
MAX_TOKEN_BYTES: Final = 64 << 10
RENEW_BEFORE: Final = 300.0
"""Seconds before its end at which a token is renewed, or a fifth of its life if that is less."""
MAX_RETRY_AFTER: Final = 3600.0
"""Seconds for which an API may forbid further requests."""

_OK: Final = 200
_TOO_MANY: Final = 429
_HEADERS: Final = [
    ("User-Agent", "derper"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "identity"),
]


class Fetcher:
    """The fetcher of one list; `async with` closes its connections at the end."""

    def __init__(
        self, api: API, client: httpclient.Client, wall: Callable[[], float] = time.time
    ) -> None:
        """`wall` returns Unix time."""
        self.api = api
        self._client = client
        self._wall = wall
        self._token = ""
        self._renew_at = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def fetch(self) -> Devices:
        """Return the devices that may use the relay. Raises DevicesFailed."""
        try:
            with trio.fail_after(FETCH_TIMEOUT):
                return await self._list()
        except trio.TooSlowError:
            raise DevicesFailed(
                f"{self.api.url.authority} gave no whole answer within {FETCH_TIMEOUT:g} s", "late"
            ) from None
        except (ExchangeFailed, ValueError) as error:
            outcome = "unreachable" if isinstance(error, ConnectFailed) else "unknown"
            raise DevicesFailed(f"{self.api.url.authority} {explain(error)}", outcome) from None
        except StartError as error:
            # The file of the secret.
            raise DevicesFailed(str(error)) from None

    async def _list(self) -> Devices:
        """Return the devices. Raises DevicesFailed, ExchangeFailed, StartError, ValueError."""
        api, oauth = self.api, self.api.oauth
        is_new = oauth is None
        while True:
            if oauth is None:
                bearer = await self._secret()
            else:
                if trio.current_time() >= self._renew_at:
                    await self._renew(oauth)
                    is_new = True
                bearer = self._token
            listed_at = self._wall()
            headers = [*_HEADERS, ("Authorization", f"Bearer {bearer}")]
            head, connection = await self._client.send("GET", api.url, headers)
            try:
                if head.status_code == UNAUTHORIZED and not is_new:
                    # The token was revoked before its time.
                    self._renew_at = -math.inf
                    continue
                if head.status_code != _OK:
                    raise self._refusal(api.url, head, api.cures)
                return Devices(await self._read(connection), listed_at)
            except AnswerFormError as error:
                raise DevicesFailed(
                    f"{api.url.authority} answers with something other than a list of devices "
                    f"({error}); check {api.address_flag}"
                ) from None
            finally:
                await self._client.finish(api.url, connection)

    async def _read(self, connection: Connection) -> dict[bytes, float]:
        """Read a list. Raises AnswerFormError, ExchangeFailed, DevicesFailed."""
        reader, expiries, received = ArrayReader(self.api.array), dict[bytes, float](), 0
        is_whole = False
        while not is_whole:
            piece = await connection.read()
            is_whole = not piece
            received += len(piece)
            for element in reader.finish() if is_whole else reader.feed(piece):
                if (usable := self.api.read(element, self.api.tags)) is not None:
                    key, expires = usable
                    expiries[key] = max(expires, expiries.get(key, -math.inf))
            if received > MAX_BYTES or len(expiries) > MAX_DEVICES:
                raise DevicesFailed(
                    f"{self.api.url.authority} lists too many devices; want {MAX_DEVICES:,} and "
                    f"{MAX_BYTES >> 20} MiB at most: narrow them with -verify-tailnet-tags"
                )
        return expiries

    async def _renew(self, oauth: OAuthClient) -> None:
        """Get a token. Raises DevicesFailed, ExchangeFailed, StartError."""
        url, body = oauth.token_url, oauth.form(await self._secret())
        headers = [
            *_HEADERS,
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", f"{len(body)}"),
        ]
        began = trio.current_time()
        head, connection = await self._client.send("POST", url, headers, body)
        try:
            if head.status_code != _OK:
                raise self._refusal(url, head, oauth.cures)
            answer = bytearray()
            while len(answer) <= MAX_TOKEN_BYTES and (piece := await connection.read()):
                answer += piece
            token = answers.read_token(bytes(answer[: MAX_TOKEN_BYTES + 1]))
        except AnswerFormError as error:
            raise DevicesFailed(
                f"{url.authority} answers with something other than an access token ({error}); "
                f"check {self.api.address_flag}"
            ) from None
        finally:
            await self._client.finish(url, connection)
        self._token = token.text
        self._renew_at = began + token.seconds - min(RENEW_BEFORE, token.seconds / 5)

    async def _secret(self) -> str:
        secret = self.api.secret
        if secret.path is None:
            return secret.value
        return await trio.to_thread.run_sync(secret.read, abandon_on_cancel=True)

    def _refusal(self, url: URL, head: Head, cures: Mapping[int, str]) -> DevicesFailed:
        """Return the error for an answer of another status than 200."""
        text = dict(head.headers).get(b"retry-after", b"").decode("latin-1")
        wait = parse_retry_after(text, datetime.fromtimestamp(self._wall(), UTC))
        wait = None if wait is None else min(wait, MAX_RETRY_AFTER)
        reason = f"{url.authority} answers with HTTP status {head.status_code}"
        if (cure := cures.get(head.status_code)) is not None:
            reason += f": {cure}"
        elif head.status_code == _TOO_MANY:
            reason += ": too many requests"
        elif head.status_code // 100 == 3:
            reason += f": a redirect; want the API's own address in {self.api.address_flag}"
        return DevicesFailed(reason, retry_after=wait)
