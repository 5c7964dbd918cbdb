"""The part of the configuration about the control socket: an addition."""

from pathlib import Path
from typing import Final

import attrs

from derp.config import checks
from derp.config.field import option
from derp.config.goflags import FILE

_AUTO: Final = "auto"


@attrs.frozen(kw_only=True)
class Control:
    """The socket that commands such as `derper clients` use."""

    socket: str = option(
        "control-socket",
        FILE,
        checks.control_socket,
        default=_AUTO,
        variable="DERP_CONTROL_SOCKET",
        placeholder="PATH",
        usage="Unix socket for derper clients, top, kick, deny, allow and limit, which only this "
        "user and root may use. auto is a file beside that of -c whose name ends in .sock; none is "
        "none.",
    )

    @property
    def is_named(self) -> bool:
        """Whether the operator has named a path: then the relay does not start without it."""
        return self.socket not in {_AUTO, ""}

    def path(self, key_file: Path | None) -> Path | None:
        """Return the path of the socket, for a relay with this key file; None for no socket."""
        if self.socket != _AUTO:
            return Path(self.socket) if self.socket else None
        if key_file is None:
            return None
        return key_file.with_name(f"{key_file.name.removesuffix('.key')}.sock")
