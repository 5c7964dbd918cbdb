"""The relay's entry for a DERP map, and how Tailscale and headscale want it written.

`derper derpmap` prints it; a relay whose hostname is an address logs its node at start. A node has
only the fields that differ from their defaults (Go: tailcfg.DERPNode). Tailscale's policy file
holds the map as JSON under "derpMap"; headscale's YAML (derp.paths) has the field names in lower
case.
"""

import json
import re
from typing import Any, Final

import attrs

from certs.hostname import IPAddress, is_wildcard, parse_ip
from certs.pair import Pair
from derp.config import Config
from derp.errors import UsageError

REGION_IDS: Final = range(900, 1000)
"""Reserved for custom relays (Go: tailcfg.DERPRegion.RegionID)."""
DEFAULT_REGION_ID: Final = 900
_HTTPS_PORT: Final = 443
_STUN_PORT: Final = 3478
_CODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
_NAME_LENGTH: Final = 80


def region_id(value: int) -> int:
    """Check the number of a region. Raises ValueError."""
    if value not in REGION_IDS:
        raise ValueError("want 900 to 999, which no relay of Tailscale's has")
    return value


def region_code(value: str) -> str:
    """Check the short name of a region, which clients show. Raises ValueError."""
    if not _CODE.fullmatch(value):
        raise ValueError("want a short name such as fra, of letters, digits and hyphens")
    return value


def region_name(value: str) -> str:
    """Check the long name of a region. Raises ValueError."""
    if not value.strip() or not value.isprintable() or len(value) > _NAME_LENGTH:
        raise ValueError(f"want a name such as Frankfurt, of at most {_NAME_LENGTH} characters")
    return value


Fields = dict[str, str | int | bool]
"""A node of a DERP map, as JSON has it (Go: tailcfg.DERPNode)."""


@attrs.frozen
class Node:
    """The way that clients reach a relay: one or more nodes of a DERP map (see `nodes`)."""

    hostname: str
    pin: str | None
    """The `CertName` of a self-signed certificate; None for any other."""
    derp_port: int | None
    """TCP, with TLS; None if the relay serves no DERP."""
    stun_port: int | None
    """UDP; None if the relay answers no STUN."""
    stun_address: IPAddress | None = None
    """The address for STUN; None if it is that of `hostname`."""
    more_hostnames: tuple[str, ...] = ()
    """Further names for the same relay."""

    @property
    def hostnames(self) -> tuple[str, ...]:
        """All names of the relay."""
        return (self.hostname, *self.more_hostnames)

    def nodes(self, region: int = DEFAULT_REGION_ID) -> list[Fields]:
        """Return the region's nodes: one for each name, and one where STUN has another address.

        The STUN node comes first: clients probe the first one more often, and in distant regions
        only that one (Go: netcheck.makeProbePlan). They connect to the first of the others that
        they can reach (Go: derphttp.Client.dialRegion).
        """
        found = [self.fields(region, number) for number in range(len(self.hostnames))]
        if self.stun_address is None or self.stun_port is None:
            return found
        name = _node_name(region, len(found))
        stun: Fields = {**found[0], "Name": name, "IPv4": "none", "IPv6": "none"}
        stun |= {f"IPv{self.stun_address.version}": str(self.stun_address), "STUNOnly": True}
        stun.pop("CertName", None)
        if self.derp_port is None:
            return [stun]
        return [stun, *({**node, "STUNPort": -1} for node in found)]

    def fields(self, region: int = DEFAULT_REGION_ID, number: int = 0) -> Fields:
        """Return the fields of the node for one of the hostnames, as tailcfg.DERPNode orders them.

        The hostname is given by its `number`, 0 for the first.
        """
        hostname = self.hostnames[number]
        fields: Fields = {
            "Name": _node_name(region, number),
            "RegionID": region,
            "HostName": hostname,
        }
        if self.pin is not None:
            fields["CertName"] = self.pin
        if (address := parse_ip(hostname)) is not None:
            fields[f"IPv{address.version}"] = str(address)
        if self.stun_port is None:
            fields["STUNPort"] = -1
        elif self.stun_port != _STUN_PORT:
            fields["STUNPort"] = self.stun_port
        if self.derp_port is None:
            fields["STUNOnly"] = True
        elif self.derp_port != _HTTPS_PORT:
            fields["DERPPort"] = self.derp_port
        return fields


def _node_name(region: int, number: int) -> str:
    """Return a node's Name, unique in the whole map: 900a … 900z, 900ba, 900bb …."""
    digits = ""
    while not digits or number:
        number, digit = divmod(number, 26)
        digits = chr(ord("a") + digit) + digits
    return f"{region}{digits}"


def pin_for(pair: Pair) -> str | None:
    """Return the pin of a self-signed certificate; None where clients need none or refuse one.

    An authority's certificate is verified by name, and has another pin once it is renewed. A client
    with a pin refuses a chain of several certificates.
    """
    return pair.pin if pair.self_signed and len(pair.chain_der) == 1 else None


def chain_warning(config: Config, pair: Pair) -> str | None:
    """Return a warning if an authority's certificate for an address comes without intermediates.

    The Go derper announces such a certificate with its pin. For a DNS name there is no warning, as
    the relay can't tell whether intermediates are missing or not needed.
    """
    if not config.tls.hostname_is_ip or pair.self_signed or len(pair.chain_der) > 1:
        return None
    return (
        f"the certificate for {config.tls.hostname} comes without intermediates: clients refuse it "
        f"unless they trust its issuer itself; put the whole chain into its file, or, where "
        f"clients can't verify it, its pin into the DERP map: CertName {pair.pin}"
    )


def make_node(
    config: Config,
    pin: str | None,
    *,
    derp_port: int | None = None,
    stun_port: int | None = None,
    stun_host: str | None = None,
) -> Node:
    """Return the node of the relay that is run with `config`.

    Ports and `stun_host` replace those of `config` where clients have to use others; of several in
    `config`, the first is the node's. Where `config` has HTTP or unix sockets only, a proxy has to
    serve HTTPS: on port 443 if `derp_port` is None. Raises UsageError if the relay serves neither
    DERP nor STUN, or a port is not known.
    """
    if derp_port is None:
        address = next(iter(config.listening.ip_addresses), None)
        if address is not None and address.port == 0:
            raise UsageError(f"-a {address}: any free port; want the one that the relay has")
        derp_port = _HTTPS_PORT if address is None or not config.serve_tls else address.port
    if stun_port is None and config.stun.enabled:
        stun_port = config.stun_addresses[0].port
        if stun_port == 0:
            raise UsageError("-stun-port 0: any free port; want the one that the relay has")
    if not config.general.derp and not config.stun.enabled:
        raise UsageError("-derp=false -stun=false: want DERP or STUN, which a map can list")
    named = [name for name in config.tls.hostnames if not is_wildcard(name)]
    if not named:
        raise UsageError(
            f"-hostname {','.join(config.tls.hostnames)}: a DERP map takes no wildcard; "
            f"want the name for clients before it, with a comma between them"
        )
    return Node(
        hostname=named[0],
        more_hostnames=tuple(named[1:]),
        pin=pin if config.general.derp else None,
        derp_port=derp_port if config.general.derp else None,
        stun_port=stun_port if config.stun.enabled else None,
        stun_address=_own_stun_address(config, stun_host) if config.stun.enabled else None,
    )


def _own_stun_address(config: Config, host: str | None) -> IPAddress | None:
    """Return the address of STUN for clients; None if it is that of the relay.

    None, too, if it is private and the relay's is public or a name: behind NAT, clients can't reach
    a private address.
    """
    own = next((each.host for each in config.stun.addresses), "")
    address, relay = parse_ip(host or own), parse_ip(config.tls.hostname)
    if address is None or address.is_unspecified:
        return None
    if address in {relay, *(parse_ip(each.host) for each in config.listening.ip_addresses)}:
        return None
    return address if address.is_global or (relay is not None and not relay.is_global) else None


def make_region(number: int, code: str, name: str, node: Node) -> dict[str, Any]:
    """Return a region with one relay, as the DERP map has it (Go: tailcfg.DERPRegion)."""
    nodes = node.nodes(number)
    return {"RegionID": number, "RegionCode": code, "RegionName": name, "Nodes": nodes}


def as_json(region: dict[str, Any]) -> str:
    """Return the member "derpMap" of a tailnet's policy file, without braces around it."""
    derp_map = {"derpMap": {"Regions": {str(region["RegionID"]): region}}}
    lines = json.dumps(derp_map, indent=2, ensure_ascii=False).splitlines()
    return "".join(f"{line.removeprefix('  ')}\n" for line in lines[1:-1])


def as_yaml(region: dict[str, Any]) -> str:
    """Return the content of a file for headscale's derp.paths."""
    lines = ["regions:", f"  {region['RegionID']}:"]
    for name, value in region.items():
        if name != "Nodes":
            lines.append(f"    {name.lower()}: {_scalar(value)}")
    lines.append("    nodes:")
    for node in region["Nodes"]:
        indent = "      - "
        for name, value in node.items():
            lines.append(f"{indent}{name.lower()}: {_scalar(value)}")
            indent = "        "
    return "\n".join(lines) + "\n"


def _scalar(value: str | float) -> str:
    """Return a value as YAML: JSON without control characters is YAML, too (YAML 1.2, 7.3)."""
    return json.dumps(value, ensure_ascii=False)
