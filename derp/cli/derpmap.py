"""The command `derper derpmap`, which prints the relay's entry for a DERP map.

The entry is made of the configuration and the certificate; the command's own flags give the region
and the published ports. The pin of a self-signed certificate is read from the certificate's file,
which only the relay creates.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import trio

from certs import manual
from certs.errors import CertificateError
from certs.files import exists
from derp import derpmap
from derp.cli import command_flags, mapcheck
from derp.config import Config, checks
from derp.config.certificates import DEFAULT_HOSTNAME, PLACEHOLDER_HOSTNAME
from derp.config.certplan import make_plan
from derp.config.goflags import BOOL, Flag, Kind, Setting
from derp.config.strconv import parse_int
from derp.errors import StartError

_INTRODUCTION = """\
Usage: derper derpmap [flags]

Prints the entry for this relay in a DERP map: for the policy file of a tailnet,
or for headscale. The exit code is 0, or 1 if the relay's certificate is not
there or --check has found something wrong, and 2 for a wrong flag.\
"""

_GROUP: Final = "Entry"
_port: Final = checks.port_from(1)
_PORT: Final = Kind("PORT", lambda text: _port(parse_int(text)) if text else 0)
"""A port, or 0 for the relay's own."""
_FORMATS: Final = {"json": derpmap.as_json, "yaml": derpmap.as_yaml}


def _format(text: str) -> str:
    if text not in _FORMATS:
        raise ValueError("want json or yaml")
    return text


_OWN: Final = (
    Flag(
        name="format",
        kind=Kind("json|yaml", _format),
        default="json",
        group=_GROUP,
        usage='json is "derpMap" for a policy file; yaml is a file for headscale\'s derp.paths.',
    ),
    Flag(
        name="check",
        kind=BOOL,
        default="false",
        group=_GROUP,
        usage="Check from this machine whether clients could use the entry: the name's addresses, "
        "TLS, the certificate, DERP and STUN. Prints a line for each problem.",
    ),
    Flag(
        name="region-id",
        kind=Kind("N", lambda text: derpmap.region_id(parse_int(text))),
        default=f"{derpmap.DEFAULT_REGION_ID}",
        group=_GROUP,
        usage="Number of the region; 900 to 999 are reserved for custom relays.",
    ),
    Flag(
        name="region-code",
        kind=Kind("CODE", derpmap.region_code),
        default="custom",
        group=_GROUP,
        usage="Short name of the region, such as fra.",
    ),
    Flag(
        name="region-name",
        kind=Kind("NAME", derpmap.region_name),
        default="Custom",
        group=_GROUP,
        usage="Name of the region, such as Frankfurt.",
    ),
    Flag(
        name="public-derp-port",
        kind=_PORT,
        group=_GROUP,
        default_words="that of -a",
        want=checks.port_want(1),
        never_empty=True,
        usage="TCP port at which clients find the relay, if it is published under another number: "
        "8443 where a container runs with -p 8443:443.",
    ),
    Flag(
        name="public-stun-port",
        kind=_PORT,
        group=_GROUP,
        default_words="that of -stun-port",
        want=checks.port_want(1),
        never_empty=True,
        usage="UDP port at which clients find STUN, if that is published under another number.",
    ),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the entry, check it if -check is given, and return the exit code.

    Raises UsageError, and StartError where the certificate can't be read.
    """
    arguments = command_flags.parse(argv, environ, _OWN)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, _OWN))
        return 0
    config, settings = arguments.config, arguments.settings
    if {DEFAULT_HOSTNAME, PLACEHOLDER_HOSTNAME}.intersection(config.tls.hostnames):
        raise settings["hostname"].wrong("want the DNS name or the IP address of this relay")
    derp_port = _public_port(settings["public-derp-port"], "derp", served=config.general.derp)
    stun_port = _public_port(settings["public-stun-port"], "stun", served=config.stun.enabled)
    node = derpmap.make_node(config, None, derp_port=derp_port, stun_port=stun_port)
    if config.general.derp and config.serve_tls:
        node = attrs.evolve(node, pin=_pin(config))
    values: dict[str, Any] = {name: setting.value for name, setting in settings.items()}
    names = values["region-code"], values["region-name"]
    region = derpmap.make_region(values["region-id"], *names, node)
    sys.stdout.write(_FORMATS[values["format"]](region))
    sys.stdout.flush()
    if config.general.derp and not config.serve_tls:
        served = ", ".join(map(str, config.listening.addresses))
        _warn(
            f"-a {served} is HTTP, and clients want HTTPS: "
            f"the entry is for a proxy that serves it on port {node.derp_port}"
        )
    if not values["check"]:
        return 0
    found = trio.run(mapcheck.problems, node)
    for problem in found:
        _warn(problem)
    return 1 if found else 0


def _public_port(setting: Setting, service: str, *, served: bool) -> int | None:
    """Return the port that a flag gives; None without the flag. Raises UsageError."""
    if not setting.value:
        return None
    if not served:
        raise setting.wrong(f"-{service}=false serves nothing there; want one of them only")
    return int(setting.value)


def _warn(line: str) -> None:
    sys.stderr.write(f"derper: {line}\n")


def _pin(config: Config) -> str | None:
    """Return the pin for the entry; None if clients need none or refuse one. Raises StartError."""
    if config.serve_acme:
        return None
    files = make_plan(config).certificates[0].files
    try:
        made_at_start = config.tls.hostname_is_ip and config.tls.certificate is None
        if made_at_start and not exists(files.certificate):
            raise StartError(
                f"{files.certificate}: no such file, and so no pin; "
                f"start the relay, which makes one, or point -certdir at the relay's"
            )
        pair = manual.load(files, config.tls.hostnames, datetime.now(UTC), make=False)
    except CertificateError as error:
        raise StartError(str(error)) from error
    # Not the pair's swap_warnings: who runs this may be another user than the relay's own.
    for warning in (*pair.warnings, derpmap.chain_warning(config, pair)):
        if warning is not None:
            _warn(warning)
    return derpmap.pin_for(pair)
