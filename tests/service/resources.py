"""Hand-made resources, as the start of a process would prepare them."""

from typing import Any, cast

import nacl.public
import trio

from derp.config import Config
from derp.files.admintoken import AdminToken
from derp.files.debugkey import DebugKey
from derp.files.ratelimit import NO_LIMIT
from derp.mesh.setup import MeshAuth
from derp.metrics import Metrics
from derp.service.running import RunningRelay
from derp.service.sockets import Sockets
from derp.service.startup import StartupResources
from derp.session.state import RelayState


def resources(**changes: Any) -> StartupResources:
    fields: dict[str, Any] = {
        "private_key": nacl.public.PrivateKey.generate(),
        "rate_limit": NO_LIMIT,
        "metrics": Metrics(),
        "admission": None,
        "mesh": MeshAuth(None, None),
        "certificates": None,
        "sockets": Sockets((), (), ()),
        "debug_key": DebugKey(None),
        "admin_token": AdminToken(None),
    }
    return StartupResources(**(fields | changes))


def running_relay(config: Config, state: RelayState, **changes: Any) -> RunningRelay:
    """Make a relay of one in a test, which has no nurseries."""
    none = cast("trio.Nursery", None)
    fields: dict[str, Any] = {
        "config": config,
        "resources": resources(),
        "state": state,
        "root": none,
        "connections": none,
        "services": none,
    }
    return RunningRelay(**(fields | changes))
