"""Who may see /debug/. Pure.

Loopback and Tailscale's own addresses, as tsweb.AllowDebugAccess has it, and nobody who came
through a proxy: behind one, every client would seem to come from loopback.
"""

import ipaddress

from derp.http.message import Request

_CGNAT = ipaddress.IPv4Network("100.64.0.0/10")
_CHROMEOS = ipaddress.IPv4Network("100.115.92.0/23")
"""The part of the CGNAT range that ChromeOS uses inside of one machine; no tailnet has it."""
_TAILSCALE_ULA = ipaddress.IPv6Network("fd7a:115c:a1e0::/48")


def is_tailscale(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether Tailscale gives out such addresses (tsaddr.IsTailscaleIP)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address in _CGNAT and address not in _CHROMEOS
    return address in _TAILSCALE_ULA


def may_debug(request: Request) -> bool:
    """Whether `request` may see the debug pages."""
    if request.header(b"x-forwarded-for"):
        return False
    try:
        address = ipaddress.ip_address(request.remote)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or is_tailscale(address)
