"""The configured mesh: the key and certificates read at the start, and the links' keepers."""

import os
import ssl
from functools import partial

import attrs

from derp import log
from derp.config import Config
from derp.files import meshkey
from derp.mesh.dial import dial
from derp.mesh.keeper import Keeper
from derp.net.listener import TCPOptions
from derp.net.socketoptions import SocketOptions
from derp.net.tlsengine import TLSEngine
from derp.session.state import RelayState

logger = log.get("mesh")


@attrs.frozen
class MeshAuth:
    """The means by which relays of the mesh authenticate each other, read at the start."""

    key: bytes | None = attrs.field(repr=False)
    """The mesh key, 32 bytes; None without one."""
    context: ssl.SSLContext | None
    """The context that verifies other relays; None if no relay is dialled."""


def read_auth(config: Config) -> MeshAuth:
    """Read the mesh key and the root certificates. Blocks. Raises StartError and UsageError."""
    return auth_with_key(config, meshkey.load(config, os.environ))


def auth_with_key(config: Config, key: bytes | None) -> MeshAuth:
    """Read the root certificates, for a process that gets the mesh key from another. Blocks."""
    return MeshAuth(key, ssl.create_default_context() if config.mesh.relays else None)


def announce(config: Config, auth: MeshAuth) -> None:
    """Log which relays are dialled, if there is a mesh key."""
    if auth.key is not None:
        dialled = " ".join(map(str, config.mesh.relays)) or "none"
        logger.info("peers with the mesh key are trusted", relays_dialled=dialled)


def keepers(config: Config, auth: MeshAuth, state: RelayState, options: TCPOptions) -> list[Keeper]:
    """Make the keepers of the links, one for each entry of -mesh-with."""
    if auth.context is None:
        return []
    engine, made_with = TLSEngine(auth.context), socket_options(config)
    return [
        Keeper(state, str(relay), partial(dial, relay, engine, options, state.view, made_with))
        for relay in config.mesh.relays
    ]


def socket_options(config: Config) -> SocketOptions:
    """Return the options that the sockets of links have before they connect."""
    return SocketOptions(config.listening.interface, config.mesh.fwmark)
