"""The part of the configuration that names the other relays of the mesh, and the file of its key.

-mesh-psk-file and -mesh-with are those of the Go derper (startMesh and defaultMeshPSKFile of
cmd/derper); -mesh-fwmark and the variables are additions. derp/files/meshkey.py resolves
KeyFile.AUTO.
"""

import enum
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from derp.config import checks
from derp.config.field import ConfigError, option
from derp.config.general import General
from derp.config.goflags import FILE, INT, STRING
from derp.config.strconv import quoted
from derp.net.address import host_port, is_dns_name, is_ip


class KeyFile(enum.Enum):
    """A key file without a path: the first default file that exists (Go: defaultMeshPSKFile)."""

    AUTO = "auto"


HTTPS_PORT: Final = 443

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<ip6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL
)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_FORM: Final = "host, host:port, or either with /dialhost after it"


@attrs.frozen
class MeshRelay:
    """Another relay: its name, and where to connect to it."""

    host: str
    """The name, or the address without brackets, that its certificate is for."""
    port: int = HTTPS_PORT
    dial_host: str = ""
    """The name or address to connect to in place of `host`; empty for none."""

    @property
    def authority(self) -> str:
        """Host and port as in HTTP's Host: no port if it is that of HTTPS."""
        text = host_port(self.host, self.port)
        return text.removesuffix(f":{HTTPS_PORT}") if self.port == HTTPS_PORT else text

    def __str__(self) -> str:
        return f"{self.authority}/{self.dial_host}" if self.dial_host else self.authority


def key_file(value: str | Path | KeyFile | None) -> Path | KeyFile | None:
    """Return AUTO for `auto`, None for the empty string, and a path for any other."""
    if value == KeyFile.AUTO.value or isinstance(value, KeyFile):
        return KeyFile.AUTO
    return checks.optional_path(value)


def relay_list(value: str | Iterable[MeshRelay]) -> tuple[MeshRelay, ...]:
    """Check a list of `host[:port][/dialhost]`; in a string, commas separate them."""
    if not isinstance(value, str):
        return tuple(dict.fromkeys(value))
    if not value:
        return ()
    return tuple(dict.fromkeys(_relay(entry.strip()) for entry in value.split(",")))


def _relay(entry: str) -> MeshRelay:
    if not entry:
        raise ValueError(f"want no empty entry, but {_FORM}, with one comma between two")
    where = quoted(entry)
    if entry.count("/") > 1:
        raise ValueError(f"want at most one slash in {where}: {_FORM}, without https://")
    side, slash, dial_side = entry.partition("/")
    if ":" in side and is_ip(side):
        raise ValueError(f"want brackets around the address in {where}")
    match = _HOST_PORT.fullmatch(side)
    if match is None or not _is_host(match["ip6"], match["host"]):
        raise ValueError(f"want the name or the address of a relay in {where}: {_FORM}")
    port = HTTPS_PORT if match["port"] is None else _port(match["port"], where)
    return MeshRelay(match["ip6"] or match["host"], port, _dial(dial_side, where) if slash else "")


def _is_host(ip6: str | None, host: str) -> bool:
    if ip6 is not None:
        return ":" in ip6 and "%" not in ip6 and is_ip(ip6)
    return is_dns_name(host) or is_ip(host)


def _port(text: str, where: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"want a port from 1 to 65535 in {where}")
    return int(text)


def _dial(text: str, where: str) -> str:
    """Check the host to connect to; an IPv6 address may have brackets."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not (is_ip(host) or (host is text and is_dns_name(host))):
        raise ValueError(
            f"want the name or the address to connect to after the slash in {where}, "
            f"without a port: that of the relay is used"
        )
    return host


@attrs.frozen(kw_only=True)
class Mesh:
    """The other relays to which packets are forwarded, and the key that all share."""

    key_file: Path | KeyFile | None = option(
        "mesh-psk-file",
        FILE,
        key_file,
        default=KeyFile.AUTO.value,
        variable="DERP_MESH_PSK_FILE",
        usage="File with the key that the relays of a region share: 64 hex digits. With it, "
        "a peer is told which clients are connected, and may forward packets. auto is "
        "/home/derp/keys/derp-mesh.key, or else ~/keys/derp-mesh.key, if there is one; "
        "empty is no key.",
    )
    """None for no key."""
    relays: tuple[MeshRelay, ...] = option(
        "mesh-with",
        STRING,
        relay_list,
        variable="DERP_MESH_WITH",
        placeholder="LIST",
        usage="The other relays, as host or host:port with commas between them: packets for "
        "their clients are forwarded. After a slash, the host to connect to instead. "
        "This relay may be in the list, too.",
    )

    fwmark: int = option(
        "mesh-fwmark",
        INT,
        checks.fwmark,
        default="0",
        variable="DERP_MESH_FWMARK",
        placeholder="MARK",
        want=checks.FWMARK_WANT,
        usage="Firewall mark, such as 0x80000, of packets to the relays of -mesh-with, by which "
        "rules of routing and of the firewall know them; 0 for none. Takes CAP_NET_ADMIN.",
    )

    def check(self, general: General) -> None:
        """Check the rules between fields. Raises ConfigError."""
        if not self.relays:
            if self.fwmark:
                raise ConfigError("mesh-fwmark", self.fwmark, "want -mesh-with with it")
            return
        listed = ",".join(map(str, self.relays))
        if not general.derp:
            raise ConfigError("mesh-with", listed, "of no use with -derp=false; leave it out")
        if self.key_file is None and not general.dev:
            raise ConfigError("mesh-with", listed, "want -mesh-psk-file with it")
