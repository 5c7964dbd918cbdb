"""Flags of the Go derper that this version knows and refuses.

Any value but the default is an error, which does not repeat the value, as some are secret.
"""

from typing import Final

from derp.config.goflags import BOOL, STRING, Flag, Kind, Value

_NO_SECRETS: Final = "setec servers are not supported; leave it out, and use -mesh-psk-file"
_NO_ACE: Final = "the ACE server is not supported; leave it out"


def _refused(name: str, kind: Kind[Value], default: str, unsupported: str) -> Flag:
    return Flag(name=name, kind=kind, default=default, usage="", unsupported=unsupported)


REFUSED: Final = (
    _refused("secrets-url", STRING, "", _NO_SECRETS),
    _refused("secrets-path-prefix", STRING, "prod/derp", _NO_SECRETS),
    _refused("secrets-cache-dir", STRING, "", _NO_SECRETS),
    _refused("ace", BOOL, "false", _NO_ACE),
)
