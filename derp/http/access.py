"""The rules of access to /debug/. Sans-I/O.

As in tsweb.AllowDebugAccess: loopback, Tailscale's addresses and those that the operator sets. But
a proxy on this machine asks from loopback, too, and so does a browser on this machine in which a
stranger's web page uses DNS rebinding. So a proxy of the operator's, or a sign of another one,
refuses access, as does a Host that isn't the relay's. The operator's key gives access in any case
but one: a key that has come over the internet unencrypted is nobody's any more.
"""

import hmac
import ipaddress
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl

import attrs

from certs.hostname import IPAddress, is_among, parse_ip
from derp.http.message import Request
from derp.net.address import is_ip

_CGNAT: Final = ipaddress.IPv4Network("100.64.0.0/10")
_CHROMEOS: Final = ipaddress.IPv4Network("100.115.92.0/23")
"""The part of the CGNAT range that ChromeOS uses inside a machine; no tailnet has it."""
_TAILSCALE_ULA: Final = ipaddress.IPv6Network("fd7a:115c:a1e0::/48")

_PROXY_HEADERS: Final = frozenset(
    {
        b"cdn-loop",
        b"client-ip",
        b"forwarded",
        b"front-end-https",
        b"surrogate-capability",
        b"true-client-ip",
        b"via",
        b"x-client-ip",
        b"x-cloud-trace-context",
        b"x-cluster-client-ip",
        b"x-host",
        b"x-originating-ip",
        b"x-real-ip",
        b"x-real-port",
        b"x-remote-addr",
        b"x-remote-ip",
        b"x-scheme",
        b"x-varnish",
    }
)
_PROXY_PREFIXES: Final = (
    b"cf-",
    b"fastly-",
    b"fly-",
    b"forwarded-",
    b"proxy-",
    b"x-amz",
    b"x-appengine-",
    b"x-azure-",
    b"x-envoy-",
    b"x-forwarded",
    b"x-original-",
    b"x-proxy",
)
"""Headers that proxies, load balancers and CDNs add: squid, nginx, Apache, Envoy, Traefik, Varnish,
those of Amazon, Azure, Cloudflare, Fastly, Fly and Google."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_tailscale(address: IPAddress) -> bool:
    """Return whether an address is in Tailscale's ranges (Go: tsaddr.IsTailscaleIP)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address in _CGNAT and address not in _CHROMEOS
    return address in _TAILSCALE_ULA


@attrs.frozen
class DebugAccess:
    """The access rules of one relay."""

    names: Sequence[str] = ()
    """The relay's names and wildcards, besides its addresses and localhost."""
    networks: Sequence[IPNetwork] = ()
    """Addresses with access besides loopback and the tailnet."""
    key: Callable[[], bytes] = attrs.field(default=bytes, repr=False)
    """Returns the current key that gives access; empty for none."""
    in_clear: bool = False
    """Whether requests come unencrypted, and could come by TLS: on the plain port beside it."""

    def is_overheard(self, request: Request) -> bool:
        """Return whether `request`, with what secrets it has, came over the internet unencrypted.

        A private address is taken for the operator's own network, such as that of a container.
        """
        if not self.in_clear or request.proxy:
            return False
        address = parse_ip(request.remote)
        return address is not None and address.is_global

    def allows(self, request: Request) -> bool:
        """Return whether `request` may see the debug pages."""
        return not self.refusal(request)

    def refusal(self, request: Request) -> str:
        """Return why `request` may not see the debug pages, and what helps; empty if it may."""
        if (shown := _shown_key(request)) is not None:
            if self.is_overheard(request):
                return (
                    "a debug key is for https only, and this one came without: others may have "
                    "read it; put another into the file of -debug-key-file, and ask by https"
                )
            if self._is_key(request, shown):
                return ""
        return self.refusal_without_key(request)

    def refusal_without_key(self, request: Request) -> str:
        """Return the same where the key gives no access: it is for looking only."""
        if not request.proxy and not self._is_trusted(request.remote):
            return (
                "debug pages are for loopback and the tailnet; "
                "-debug-allow-ip, -debug-trusted-cidrs and -debug-key-file open them to others"
            )
        if sign := request.proxy or proxy_sign(request):
            return (
                f"debug pages are not served through a proxy ({sign}): "
                f"ask the relay itself, or use -debug-key-file"
            )
        if not self._is_own_host(request.host):
            return (
                "debug pages are served under an IP address, localhost or -hostname, and this Host "
                "is none of them: ask under one of them, or use -debug-key-file"
            )
        return ""

    def _is_key(self, request: Request, shown: bytes) -> bool:
        """Return whether `request` is a GET, and what it has shown is the key."""
        key = self.key()
        return bool(key) and request.method == "GET" and hmac.compare_digest(key, shown)

    def _is_trusted(self, remote: str) -> bool:
        address = parse_ip(remote)
        if address is None:
            return False
        known = address.is_loopback or is_tailscale(address)
        return known or any(address in network for network in self.networks)

    def _is_own_host(self, host: str) -> bool:
        """Return whether `host`, maybe with a port, is an address, localhost or one of `names`."""
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        elif host.count(":") == 1:
            host = host.partition(":")[0]
        name = host.lower().removesuffix(".")
        return name == "localhost" or is_ip(name) or is_among(name, self.names)


def _shown_key(request: Request) -> bytes | None:
    """Return the first `debugkey` of the query; None if there is none."""
    if "debugkey" not in request.query:
        return None
    fields = parse_qsl(request.query, keep_blank_values=True, errors="surrogateescape")
    shown = next((value for name, value in fields if name == "debugkey"), None)
    return None if shown is None else shown.encode("utf-8", "surrogateescape")


def proxy_sign(request: Request) -> str:
    """Return the sign that `request` has come through a proxy; empty for none.

    Any value of a proxy's header is a sign. nginx adds no header by default. But only nginx uses
    HTTP/1.0, or, with its guide's websocket settings, sends Connection: upgrade without Upgrade.
    """
    for name, _ in request.headers:
        if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES):
            return name.decode()
    if request.version == "1.0":
        return "HTTP/1.0"
    connection = {token.lower() for token in request.tokens(b"connection")}
    if "upgrade" in connection and not request.header(b"upgrade"):
        return "Connection: upgrade"
    return ""
