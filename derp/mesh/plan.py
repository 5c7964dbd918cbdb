"""The mesh as configured: what is read at the start, and the keepers of the links."""

import os
import ssl
from functools import partial

import attrs

from derp import log
from derp.config import Config
from derp.files import meshkey
from derp.mesh.dial import dial, make_context
from derp.mesh.keeper import Keeper
from derp.net.listener import TCPOptions
from derp.net.tlsengine import TLSEngine
from derp.session.state import RelayState

logger = log.get("mesh")


@attrs.frozen
class Plan:
    """The mesh key and TLS context, read at the start."""

    key: bytes | None = attrs.field(repr=False)
    """The 32 bytes that mesh peers show; None without a mesh key."""
    context: ssl.SSLContext | None
    """The context that verifies other relays; None if none is dialled."""


def make_plan(config: Config) -> Plan:
    """Read the mesh key and the system's root certificates. Blocks.

    Raises StartError and UsageError.
    """
    return plan_with_key(config, meshkey.load(config, os.environ))


def plan_with_key(config: Config, key: bytes | None) -> Plan:
    """Return the plan with the given mesh key. Blocks: it reads the root certificates."""
    return Plan(key, make_context() if config.mesh.relays else None)


def announce(config: Config, plan: Plan) -> None:
    """Log that there is a mesh key, and which relays are dialled."""
    if plan.key is not None:
        dialled = " ".join(map(str, config.mesh.relays)) or "none"
        logger.info("whoever has the mesh key is trusted", relays_dialled=dialled)


def keepers(config: Config, plan: Plan, state: RelayState, options: TCPOptions) -> list[Keeper]:
    """Make the keepers of the links, one for each relay in the configuration."""
    if plan.context is None:
        return []
    engine = TLSEngine(plan.context)
    return [
        Keeper(state, str(relay), partial(dial, relay, engine, options, state.view))
        for relay in config.mesh.relays
    ]
