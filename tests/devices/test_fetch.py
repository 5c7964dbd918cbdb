"""The fetch of a list: requests, tokens, and the errors that say what to do."""

import math
import ssl
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from derp.devices import api
from derp.devices.fetch import (
    FETCH_TIMEOUT,
    MAX_RETRY_AFTER,
    RENEW_BEFORE,
    Fetcher,
)
from derp.devices.secret import Secret
from derp.errors import ConnectFailed, DevicesFailed
from tests.devices.memory import EPOCH, MemoryClient, wall
from tests.support.deviceapis import (
    API_KEY,
    CLIENT_ID,
    CLIENT_SECRET,
    HEADSCALE_KEY,
    TAILNET,
    Answer,
    Headscale,
    Tailscale,
    device,
    node,
    refusal,
)

Clock = trio.testing.MockClock
ALICE, BOB = b"a" * 32, b"b" * 32
BASE = "https://api.tailscale.com"
WHERE = "-tailnet-client-secret-file (DERP_TAILNET_CLIENT_SECRET_FILE)"
KEY_WHERE = "-tailnet-api-key (DERP_TAILNET_API_KEY)"
SECRETS = (CLIENT_SECRET, API_KEY, HEADSCALE_KEY, "tskey-api-kToken")


@pytest.fixture
def tailscale() -> Tailscale:
    return Tailscale([device(ALICE), device(BOB, keyExpiryDisabled=True)])


@pytest.fixture
def client(nursery: trio.Nursery, tailscale: Tailscale) -> MemoryClient:
    return MemoryClient(nursery, tailscale)


def by_oauth(client: MemoryClient, tailnet: str = TAILNET, secret: str = CLIENT_SECRET) -> Fetcher:
    asked = api.tailscale(BASE, tailnet, Secret(WHERE, secret), client_id=CLIENT_ID)
    return Fetcher(asked, client, wall)


def by_key(client: MemoryClient, secret: Secret | None = None, tailnet: str = TAILNET) -> Fetcher:
    given = secret or Secret(KEY_WHERE, API_KEY)
    return Fetcher(api.tailscale(BASE, tailnet, given, client_id=""), client, wall)


async def failure(fetcher: Fetcher) -> DevicesFailed:
    with pytest.raises(DevicesFailed) as caught:
        await fetcher.fetch()
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_by_an_oauth_client(
    autojump_clock: Clock, client: MemoryClient, tailscale: Tailscale
) -> None:
    await trio.sleep(5)
    fetcher = by_oauth(client)
    assert fetcher.api.name == "tailnet:example.com"
    devices = await fetcher.fetch()
    assert devices.listed_at == EPOCH + 5
    assert devices.expiries == {ALICE: 2001041045.0, BOB: math.inf}
    await fetcher.fetch()
    listing = "GET /api/v2/tailnet/example.com/devices"
    assert tailscale.requests == ["POST /api/v2/oauth/token", listing, listing]
    assert client.connections == 1


async def test_by_a_key(client: MemoryClient, tailscale: Tailscale) -> None:
    assert (await by_key(client, tailnet="-").fetch()).expiries.keys() == {ALICE, BOB}
    assert tailscale.requests == ["GET /api/v2/tailnet/-/devices"]


async def test_a_key_in_a_file_is_read_each_time(client: MemoryClient, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("tskey-api-old")
    fetcher = by_key(client, Secret("-tailnet-api-key-file", path=file))
    assert "answers with HTTP status 401" in str(await failure(fetcher))
    file.write_text(API_KEY)
    await fetcher.fetch()
    file.unlink()
    assert "No such file" in str(await failure(fetcher))


async def test_a_token_is_renewed_before_it_ends(
    autojump_clock: Clock, client: MemoryClient, tailscale: Tailscale
) -> None:
    """The API never gets one that has ended."""
    fetcher = by_oauth(client)
    for _ in range(200):
        await fetcher.fetch()
        await trio.sleep(60)
    assert len(tailscale.tokens) == math.ceil(200 * 60 / (3600 - RENEW_BEFORE))
    assert len(tailscale.requests) == 200 + len(tailscale.tokens)


async def test_a_token_of_short_life(
    autojump_clock: Clock, client: MemoryClient, tailscale: Tailscale
) -> None:
    tailscale.token_seconds = 100
    fetcher = by_oauth(client)
    await fetcher.fetch()
    await trio.sleep(79)
    await fetcher.fetch()
    assert len(tailscale.tokens) == 1
    await trio.sleep(2)
    await fetcher.fetch()
    assert len(tailscale.tokens) == 2


async def test_a_token_that_is_revoked_is_replaced_at_once(
    client: MemoryClient, tailscale: Tailscale
) -> None:
    fetcher = by_oauth(client)
    await fetcher.fetch()
    tailscale.tokens.clear()
    assert (await fetcher.fetch()).expiries
    # But not again and again.
    tailscale.token_seconds = 1e-9
    tailscale.tokens.clear()
    asked = len(tailscale.requests)
    assert "HTTP status 401" in str(await failure(fetcher))
    assert len(tailscale.requests) == asked + 3


async def test_what_the_operator_has_to_do(client: MemoryClient, tailscale: Tailscale) -> None:
    assert str(await failure(by_oauth(client, secret="wrong"))) == (
        "api.tailscale.com answers with HTTP status 401: the OAuth client is refused; "
        f"check -tailnet-client-id and {WHERE}"
    )
    assert str(await failure(by_key(client, Secret(KEY_WHERE, "wrong")))) == (
        "api.tailscale.com answers with HTTP status 401: the credential is refused; "
        f"check {KEY_WHERE}, a key ends after 90 days at most"
    )
    assert str(await failure(by_key(client, tailnet="other.com"))) == (
        "api.tailscale.com answers with HTTP status 404: no such tailnet for this credential; "
        "check -verify-tailnet other.com, or write - for the credential's own"
    )
    tailscale.may_read = False
    assert str(await failure(by_oauth(client))) == (
        f"api.tailscale.com answers with HTTP status 403: the credential of {WHERE} "
        "may not list the devices; give the OAuth client the scope devices:core:read"
    )


@pytest.mark.parametrize(
    ("answer", "reason", "retry_after"),
    [
        (refusal(429, "slow down", **{"Retry-After": "90"}), "429: too many requests", 90),
        (refusal(429, "slow down"), "429: too many requests", None),
        (refusal(503, "", **{"Retry-After": "9999999"}), "503", MAX_RETRY_AFTER),
        (refusal(503, "", **{"Retry-After": "never"}), "503", None),
        (refusal(500, API_KEY), "500", None),
        (
            refusal(302, "", Location="https://elsewhere.test/"),
            "302: a redirect; want the API's own address in -verify-tailnet-api",
            None,
        ),
    ],
)
async def test_what_passes_by_itself(
    client: MemoryClient,
    tailscale: Tailscale,
    answer: Answer,
    reason: str,
    retry_after: float | None,
) -> None:
    tailscale.refusal = answer
    error = await failure(by_key(client))
    assert str(error) == f"api.tailscale.com answers with HTTP status {reason}"
    assert error.retry_after == retry_after
    assert len(tailscale.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>hello", b'{"devices":7}', b'{"devices":[{}'])
async def test_what_is_no_list(client: MemoryClient, tailscale: Tailscale, body: bytes) -> None:
    tailscale.refusal = Answer(200, body)
    error = str(await failure(by_key(client)))
    assert error.startswith("api.tailscale.com answers with something other than a list of devices")
    assert error.endswith("check -verify-tailnet-api")
    error = str(await failure(by_oauth(client)))
    assert error.startswith("api.tailscale.com answers with something other than an access token")


@pytest.mark.parametrize(
    "raw",
    [
        lambda data: data[:-5],
        lambda data: b"",
        lambda data: b"SSH-2.0\r\n\r\n",
        lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
    ],
)
async def test_an_answer_that_is_cut_off_is_no_list(
    client: MemoryClient, raw: Callable[[bytes], bytes]
) -> None:
    client.raw = raw
    error = await failure(by_key(client))
    assert error.outcome == "unknown"
    assert "api.tailscale.com can't be asked" in str(error)


async def test_nobody_is_there(client: MemoryClient) -> None:
    client.is_down = True
    error = await failure(by_oauth(client))
    assert (str(error), error.outcome) == (
        "api.tailscale.com can't be asked (Connection refused)",
        "unreachable",
    )


async def test_too_slow(autojump_clock: Clock, client: MemoryClient) -> None:
    client.takes = FETCH_TIMEOUT / 2 + 1
    error = await failure(by_oauth(client))
    assert (str(error), error.outcome) == (
        "api.tailscale.com gave no whole answer within 30 s",
        "late",
    )
    assert trio.current_time() == FETCH_TIMEOUT


async def test_a_wrong_certificate(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
        cause.verify_message = "unable to get local issuer certificate"
        raise ConnectFailed("no TLS") from cause

    monkeypatch.setattr(client, "_connect", refuse)
    assert str(await failure(by_key(client))) == (
        "api.tailscale.com has a certificate that can't be verified (unable to get local issuer "
        "certificate); give -verify-client-url-ca-bundle its root if you have an authority of "
        "your own"
    )


async def test_a_list_without_end(client: MemoryClient, tailscale: Tailscale) -> None:
    """It is given up in the middle."""
    tailscale.devices *= 1000
    fetcher = by_key(client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derp.devices.fetch.MAX_BYTES", 200_000)
        assert "lists too many devices" in str(await failure(fetcher))
    assert (await fetcher.fetch()).expiries.keys() == {ALICE, BOB}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derp.devices.fetch.MAX_DEVICES", 1)
        assert "-verify-tailnet-tags" in str(await failure(fetcher))


async def test_one_key_of_two_devices_counts_for_the_longer(
    client: MemoryClient, tailscale: Tailscale
) -> None:
    tailscale.devices[:] = [device(ALICE, keyExpiryDisabled=True), device(ALICE)]
    assert (await by_key(client).fetch()).expiries == {ALICE: math.inf}


async def test_tags(client: MemoryClient, tailscale: Tailscale) -> None:
    tailscale.devices.append(device(b"t" * 32, tags=["tag:relay"]))
    asked = by_key(client).api
    narrowed = attrs.evolve(asked, tags=frozenset({"tag:relay"}))
    assert (await Fetcher(narrowed, client, wall).fetch()).expiries.keys() == {b"t" * 32}


async def test_headscale(nursery: trio.Nursery) -> None:
    stub = Headscale([{"nodeKey": node(ALICE), "expiry": None, "online": True}])
    client = MemoryClient(nursery, stub)
    where = "-headscale-api-key (DERP_HEADSCALE_API_KEY)"
    asked = api.headscale("http://hs.example:8080/", Secret(where, HEADSCALE_KEY))
    assert asked.name == "headscale:hs.example:8080"
    assert (await Fetcher(asked, client, wall).fetch()).expiries == {ALICE: math.inf}
    assert stub.requests == ["GET /api/v1/node"]
    wrong = api.headscale("http://hs.example:8080", Secret(where, "wrong"))
    assert str(await failure(Fetcher(wrong, client, wall))) == (
        f"hs.example:8080 answers with HTTP status 401: the key is refused; check {where}, "
        "'headscale apikeys create' makes another"
    )
    elsewhere = api.headscale("http://hs.example/sub/", Secret(where, HEADSCALE_KEY))
    assert elsewhere.name == "headscale:hs.example/sub"
    assert str(await failure(Fetcher(elsewhere, client, wall))) == (
        "hs.example answers with HTTP status 404: want the URL of a headscale, of version 0.23 or "
        "later"
    )


async def test_a_name_is_one_part_of_the_path(client: MemoryClient, tailscale: Tailscale) -> None:
    await failure(by_key(client, tailnet="a@example.com/../x?y"))
    assert tailscale.requests == ["GET /api/v2/tailnet/a%40example.com%2F..%2Fx%3Fy/devices"]
