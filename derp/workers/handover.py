"""The handover to a worker that starts: its index, keys and sockets.

The worker reads its configuration itself, from the same arguments and variables. It is handed what
has to be the same in all workers, and what was opened or made when the relay started.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import derp
from derp.files.ratelimit import RateConfig
from derp.service.sockets import Sockets
from derp.workers.rpc import Json


@attrs.frozen(kw_only=True)
class Handover:
    """The first message on the RPC connection; bytes are in hex there."""

    code: str
    """The supervisor's `this_code`; a worker of other code may not understand the messages."""
    index: int
    """The worker's number, from 0."""
    workers: int
    """The number of workers."""
    node_key: bytes = attrs.field(repr=False)
    """The relay's private key, 32 bytes."""
    mesh_key: bytes | None = attrs.field(repr=False)
    """The key that relays of the region show, 32 bytes; None without a mesh."""
    worker_key: bytes = attrs.field(repr=False)
    """The key that workers show each other, 32 bytes, made at each start of the relay."""
    main: Sequence[int]
    plain: Sequence[int]
    stun: Sequence[int]
    """Descriptors, which the worker inherits; see Sockets."""
    peer_socket: int
    """The descriptor of the listening socket that the other workers connect to."""
    peer_addresses: Sequence[bytes]
    """The addresses of all workers' peer sockets, by index."""
    rate_limit: RateConfig
    has_admission: bool
    """Whether to ask the supervisor who may use the relay."""
    has_policy: bool
    """Whether to ask the supervisor for the policy before the first client is accepted."""
    certificates: Json = attrs.field(repr=False)
    """See derp.workers.certificates; None without HTTPS."""

    def to_json(self) -> Json:
        """Return the handover as a message."""
        return attrs.asdict(self, value_serializer=_serialize)

    @classmethod
    def from_json(cls, message: Json) -> "Handover":
        """Undo `to_json`."""
        mesh_key = message["mesh_key"]
        return cls(
            **{
                **message,
                "node_key": bytes.fromhex(message["node_key"]),
                "mesh_key": None if mesh_key is None else bytes.fromhex(mesh_key),
                "worker_key": bytes.fromhex(message["worker_key"]),
                "peer_addresses": [bytes.fromhex(each) for each in message["peer_addresses"]],
                "rate_limit": RateConfig(**message["rate_limit"]),
            }
        )

    @property
    def descriptors(self) -> list[int]:
        """All descriptors that the worker inherits, each once."""
        return list(dict.fromkeys([*self.main, *self.plain, *self.stun, self.peer_socket]))

    def sockets(self) -> Sockets:
        """Take over the inherited sockets that clients connect to."""
        return Sockets(*(list(map(adopt, group)) for group in (self.main, self.plain, self.stun)))


def _serialize(_: object, __: object, value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def this_code() -> str:
    """Return the version of this program, and its directory."""
    return f"trio-derper {derp.__version__} in {Path(derp.__file__).resolve().parent}"


def adopt(descriptor: int) -> socket.socket:
    """Return an inherited descriptor as a non-blocking socket, which no child inherits."""
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock
