"""The differences between Tailscale's and headscale's APIs: requests, answers, cures.

Both are asked with a bearer token (RFC 6750). It is an API key, or what Tailscale's gives for the
id and secret of an OAuth client (client credentials, RFC 6749, section 4.4), for an hour.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

import attrs

from derp.devices.answers import ReadDevice, read_headscale, read_tailscale
from derp.devices.secret import Secret
from derp.net.httpclient import URL

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
BAD_REQUEST: Final = 400


@attrs.frozen
class OAuthClient:
    """The id of an OAuth client, and where it gets its tokens; its secret is that of the API."""

    identity: str
    token_url: URL
    cures: Mapping[int, str]
    """What to do, by the status of an answer that has no token."""

    def form(self, secret: str) -> bytes:
        """Return the body of the request for a token."""
        fields = {
            "grant_type": "client_credentials",
            "client_id": self.identity,
            "client_secret": secret,
        }
        return urlencode(fields).encode()


@attrs.frozen
class API:
    """One list of devices, and how to get it."""

    name: str
    """That of the source, for logs, metrics and groups."""
    address_flag: str
    """The flag that has the API's address."""
    url: URL
    array: str
    """The name of the array in the answer."""
    read: ReadDevice
    tags: frozenset[str]
    secret: Secret
    """The API key, or the secret of `oauth`."""
    cures: Mapping[int, str]
    """What to do, by the status of an answer that has no list."""
    oauth: OAuthClient | None = None


def tailscale(
    base: str, tailnet: str, secret: Secret, *, client_id: str, tags: frozenset[str] = frozenset()
) -> API:
    """Return Tailscale's API at `base` for one tailnet; `client_id` is empty with an API key."""
    base = base.rstrip("/")
    oauth = None
    wrong = f"the credential is refused; check {secret.where}, a key ends after 90 days at most"
    if client_id:
        wrong = f"the OAuth client is refused; check -tailnet-client-id and {secret.where}"
        cures = dict.fromkeys((BAD_REQUEST, UNAUTHORIZED, FORBIDDEN), wrong)
        oauth = OAuthClient(client_id, URL.parse(f"{base}/api/v2/oauth/token"), cures)
    may_not = "give the OAuth client the scope devices:core:read"
    if not client_id:
        may_not = "make a key as a user who may see the machines of the tailnet"
    return API(
        name=f"tailnet:{tailnet}",
        address_flag="-verify-tailnet-api",
        url=URL.parse(f"{base}/api/v2/tailnet/{quote(tailnet, safe='')}/devices"),
        array="devices",
        read=read_tailscale,
        tags=tags,
        secret=secret,
        cures={
            UNAUTHORIZED: wrong,
            FORBIDDEN: f"the credential of {secret.where} may not list the devices; {may_not}",
            NOT_FOUND: f"no such tailnet for this credential; check -verify-tailnet {tailnet}, "
            "or write - for the credential's own",
        },
        oauth=oauth,
    )


def headscale(base: str, secret: Secret, *, tags: frozenset[str] = frozenset()) -> API:
    """Return the API of the headscale at `base`."""
    base = base.rstrip("/")
    url = URL.parse(f"{base}/api/v1/node")
    wrong = f"the key is refused; check {secret.where}, 'headscale apikeys create' makes another"
    where = url.authority + URL.parse(f"{base}/").path.rstrip("/")
    return API(
        name=f"headscale:{where}",
        address_flag="-verify-headscale",
        url=url,
        array="nodes",
        read=read_headscale,
        tags=tags,
        secret=secret,
        cures={
            UNAUTHORIZED: wrong,
            FORBIDDEN: wrong,
            NOT_FOUND: "want the URL of a headscale, of version 0.23 or later",
        },
    )
