"""What a worker gets from its supervisor when it starts: who it is, and the sockets it serves on.

Configuration it reads itself, from the same arguments and variables. What must be the same in all
workers, and what was opened or made at the start of the relay, comes with this.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

import derp
from derp.files.ratelimit import RateConfig
from derp.service.sockets import Sockets
from derp.workers.rpc import Json


@attrs.frozen(kw_only=True)
class Handover:
    """As the first message on the control connection; bytes are in hex there."""

    code: str
    """What the supervisor runs; a worker that runs something else may not understand it."""
    index: int
    """Of this worker, from 0."""
    workers: int
    """How many there are."""
    node_key: bytes = attrs.field(repr=False)
    """The relay's private key, 32 bytes."""
    mesh_key: bytes | None = attrs.field(repr=False)
    """What relays of other machines show, 32 bytes; None where there are none."""
    worker_key: bytes = attrs.field(repr=False)
    """What workers show each other, 32 bytes, made anew at each start of the relay."""
    main: Sequence[int]
    plain: Sequence[int]
    stun: Sequence[int]
    """Descriptors, which the worker inherits; see Sockets."""
    door: int
    """That of the listening socket where the other workers come in."""
    doors: Sequence[bytes]
    """Addresses of those of all workers."""
    rate_limit: RateConfig
    is_gated: bool
    """Whether the supervisor is to be asked who may use the relay."""
    certificates: Json = attrs.field(repr=False)
    """What derp.workers.certificates makes of it; None without HTTPS."""

    def to_json(self) -> Json:
        """Return it as a message."""
        return {
            "code": self.code,
            "index": self.index,
            "workers": self.workers,
            "node_key": self.node_key.hex(),
            "mesh_key": None if self.mesh_key is None else self.mesh_key.hex(),
            "worker_key": self.worker_key.hex(),
            "main": list(self.main),
            "plain": list(self.plain),
            "stun": list(self.stun),
            "door": self.door,
            "doors": [door.hex() for door in self.doors],
            "rate_limit": [self.rate_limit.bytes_per_second, self.rate_limit.burst],
            "is_gated": self.is_gated,
            "certificates": self.certificates,
        }

    @classmethod
    def from_json(cls, message: Json) -> "Handover":
        """Read what `to_json` has made."""
        mesh_key = message["mesh_key"]
        return cls(
            code=message["code"],
            index=message["index"],
            workers=message["workers"],
            node_key=bytes.fromhex(message["node_key"]),
            mesh_key=None if mesh_key is None else bytes.fromhex(mesh_key),
            worker_key=bytes.fromhex(message["worker_key"]),
            main=message["main"],
            plain=message["plain"],
            stun=message["stun"],
            door=message["door"],
            doors=[bytes.fromhex(door) for door in message["doors"]],
            rate_limit=RateConfig(*message["rate_limit"]),
            is_gated=message["is_gated"],
            certificates=message["certificates"],
        )

    @property
    def descriptors(self) -> list[int]:
        """All that the worker inherits, each once."""
        return list(dict.fromkeys([*self.main, *self.plain, *self.stun, self.door]))

    def sockets(self) -> Sockets:
        """Take the inherited sockets that strangers come to."""
        return Sockets(*(list(map(adopt, group)) for group in (self.main, self.plain, self.stun)))


def this_code() -> str:
    """Name the version of this program, and where it is."""
    return f"trio-derper {derp.__version__} in {Path(derp.__file__).resolve().parent}"


def adopt(descriptor: int) -> socket.socket:
    """Make a non-blocking socket of an inherited descriptor, which no child inherits."""
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock
