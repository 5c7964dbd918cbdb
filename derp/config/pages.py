"""The part of the configuration that says what the pages are, and who may see /debug/.

The flags of Pages are the Go derper's, but for DERP_HOME and `-home hidden`; those of Debug are
additions, and each `other_variable` one of Go's tsweb (AllowDebugAccess).
"""

from pathlib import Path

import attrs

from certs.hostname import IPAddress
from derp.config import checks
from derp.config.field import file_option, option
from derp.config.goflags import STRING
from derp.http.bootstrap_dns import Name
from derp.relay.networks import Network


@attrs.frozen(kw_only=True)
class Pages:
    """The content of / and /bootstrap-dns."""

    home: str = option(
        "home",
        STRING,
        checks.home_page,
        variable="DERP_HOME",
        placeholder="WHAT",
        usage="What / serves: blank for an empty page, a URL to redirect to, "
        "or a short page about DERP if not given. hidden makes the ports look like a web server "
        "with nothing on it, to all but Tailscale's clients.",
    )
    bootstrap_dns_names: tuple[Name, ...] = option(
        "bootstrap-dns-names",
        STRING,
        checks.bootstrap_names,
        placeholder="NAMES",
        usage="Names, with commas between them, whose addresses /bootstrap-dns lists.",
    )
    unpublished_bootstrap_dns_names: tuple[Name, ...] = option(
        "unpublished-bootstrap-dns-names",
        STRING,
        checks.bootstrap_names,
        placeholder="NAMES",
        usage="Names, with commas between them, whose addresses /bootstrap-dns gives only when "
        "asked for the name; with name/txt-name only to the percentage of clients in the TXT "
        "record of txt-name.",
    )

    @property
    def is_hidden(self) -> bool:
        """Whether all but the requests of clients get the answers of another web server."""
        return self.home == checks.HIDDEN


@attrs.frozen(kw_only=True)
class Debug:
    """Access to /debug/ for others than loopback and the tailnet, and to steering there."""

    addresses: tuple[IPAddress, ...] = option(
        "debug-allow-ip",
        STRING,
        checks.ip_addresses,
        variable="DERP_DEBUG_ALLOW_IP",
        other_variable="TS_ALLOW_DEBUG_IP",
        placeholder="ADDRESSES",
        usage="IP addresses, with commas between them, that may see /debug/, besides loopback and "
        "the tailnet.",
    )
    networks: tuple[Network, ...] = option(
        "debug-trusted-cidrs",
        STRING,
        checks.network_list,
        variable="DERP_DEBUG_TRUSTED_CIDRS",
        other_variable="TS_DEBUG_TRUSTED_CIDRS",
        placeholder="NETWORKS",
        usage="The same for networks, such as 10.0.0.0/8.",
    )
    key_file: Path | None = file_option(
        "debug-key-file",
        variable="DERP_DEBUG_KEY_FILE",
        other_variable="TS_DEBUG_KEY_PATH",
        usage="File with a key, read again when it changes: /debug/?debugkey=KEY shows that page "
        "from any address, and through a proxy; over the internet by https only.",
    )
    admin_token_file: Path | None = file_option(
        "admin-token-file",
        variable="DERP_ADMIN_TOKEN_FILE",
        usage="File with the operator's token, read again when it changes: who has it may "
        "disconnect, deny and allow clients on /debug/. Nobody may if not given.",
    )
