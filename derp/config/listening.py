"""The part of the configuration about addresses to serve at, and about TCP.

-stun-addr, -interface, -tcp-congestion and the variables are additions, the other flags those of
the Go derper, which has one address in -a.
"""

import math

import attrs

from derp.config import checks
from derp.config.addresses import StunAddress, listen_addresses, stun_addresses
from derp.config.field import bool_option, option
from derp.config.goflags import DURATION, INT, STRING
from derp.net.listenaddress import Address, ListenAddress


@attrs.frozen(kw_only=True)
class Listening:
    """The addresses and the interface of HTTPS and HTTP."""

    addresses: tuple[ListenAddress, ...] = option(
        "a",
        STRING,
        listen_addresses,
        default=":443",
        separator=",",
        variable="DERP_ADDR",
        placeholder="ADDRESS",
        usage="Where to serve: :port for all interfaces, ip:port, [ip6]:port, or "
        "unix:/path,mode=0660,group=www-data for a socket that the proxies of this machine may "
        "open; several with commas between them, or the flag again. ipv4@:port and ipv6@:port are "
        "for one IP version. "
        "It is HTTPS if a port is 443, -certmode is manual, or -acme-directory, -acme-dns or "
        "-acme-dns-exec is given, and HTTP otherwise.",
    )
    http_port: int = option(
        "http-port",
        INT,
        checks.port_from(-1),
        default="80",
        variable="DERP_HTTP_PORT",
        placeholder="PORT",
        want=checks.port_want(-1),
        usage="Port for plain HTTP beside HTTPS, on the IP addresses of -a; -1 for none.",
    )
    """-1 for none. Not used without `serve_tls`."""
    interface: str = option(
        "interface",
        STRING,
        checks.interface,
        variable="DERP_INTERFACE",
        placeholder="NAME",
        usage="Network interface, such as eth0, from which alone clients are served, and by which "
        "other relays are dialled. Sockets at loopback addresses are not bound to it.",
    )
    """Empty for any."""

    @property
    def ip_addresses(self) -> list[Address]:
        """The addresses that are no unix sockets."""
        return [address for address in self.addresses if isinstance(address, Address)]


@attrs.frozen(kw_only=True)
class STUN:
    """The addresses of STUN, if it is answered."""

    enabled: bool = bool_option(
        "stun",
        default="true",
        variable="DERP_STUN",
        usage="Answer STUN.",
    )
    addresses: tuple[StunAddress, ...] = option(
        "stun-addr",
        STRING,
        stun_addresses,
        separator=",",
        variable="DERP_STUN_ADDR",
        placeholder="ADDRESS",
        usage="Where to answer STUN, if not at the IP addresses of -a: an IP address, with a port "
        "if that is not -stun-port, or * for all interfaces; several as in -a.",
    )
    """Empty for the addresses of -a. See `Config.stun_addresses`."""
    port: int = option(
        "stun-port",
        INT,
        checks.port_from(0),
        default="3478",
        variable="DERP_STUN_PORT",
        placeholder="PORT",
        want=checks.port_want(0),
        usage="UDP port for STUN.",
    )


@attrs.frozen(kw_only=True)
class TCP:
    """The times, in seconds, after which a silent client is ended; and congestion control."""

    keepalive_time: float = option(
        "tcp-keepalive-time",
        DURATION,
        checks.duration_up_to(32767.0, "9h6m7s"),
        default="10m",
        usage="Idle time after which TCP probes whether a client is still there; 0 for never.",
    )
    """At most what TCP_KEEPIDLE takes."""
    user_timeout: float = option(
        "tcp-user-timeout",
        DURATION,
        checks.duration_up_to(2147483.647, "596h31m23.647s"),
        default="15s",
        usage="How long sent data may go unacknowledged; 0 leaves it to the kernel.",
    )
    """At most what TCP_USER_TIMEOUT takes, which counts milliseconds."""
    write_timeout: float = option(
        "tcp-write-timeout",
        DURATION,
        checks.duration_up_to(math.inf, "292 years"),
        default="2s",
        usage="How long a client may read nothing while data waits for it; 0 for ever.",
    )
    congestion: str = option(
        "tcp-congestion",
        STRING,
        checks.congestion_control,
        variable="DERP_TCP_CONGESTION",
        placeholder="NAME",
        usage="Congestion control of the connections to clients and other relays, such as bbr, if "
        "it is not the kernel's default.",
    )
    """Empty for the kernel's default."""
