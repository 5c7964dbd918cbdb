"""Where the control socket is."""

from pathlib import Path

import pytest

from derp.config import Config, flag_table, goflags
from derp.errors import UsageError

HOME = {"HOME": "/home/derp"}


def configured(*flags: str, root: bool = True, **variables: str) -> Config:
    environ = HOME | {"DERP_DOMAIN": "derp.example.com"} | variables
    return Config.from_settings(
        goflags.parse(flag_table(environ, root=root), flags, environ).settings
    )


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ((), "/var/lib/derper/derper.sock"),
        (("-c", "/keys/relay.key"), "/keys/relay.sock"),
        (("-c", "/app/certs/derper+key"), "/app/certs/derper+key.sock"),
        (("-c", "relay.key"), "relay.sock"),
        (("-dev",), None),
        (("-dev", "-control-socket", "/run/x"), "/run/x"),
        (("-control-socket", "auto"), "/var/lib/derper/derper.sock"),
        (("-control-socket", "/run/x"), "/run/x"),
        (("-control-socket=",), None),
        (("-control-socket", "none"), None),
    ],
)
def test_its_path(flags: tuple[str, ...], path: str | None) -> None:
    config = configured(*flags)
    assert config.control_path == (None if path is None else Path(path))
    assert config.control.is_named == ("/run/x" in flags)


def test_by_variable() -> None:
    assert configured(DERP_CONTROL_SOCKET="/run/x").control_path == Path("/run/x")
    assert configured(DERP_CONTROL_SOCKET="none").control_path is None
    # As of any flag, an empty variable is none at all.
    assert configured(DERP_CONTROL_SOCKET="").control_path is not None


@pytest.mark.parametrize("path", ["derper.sock", "./none", "/" + "x" * 107, "/a\0b", "unix:/x"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(
        UsageError, match="want an absolute path of at most 107 bytes, auto or none"
    ):
        configured("-control-socket", path)
