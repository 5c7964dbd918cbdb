"""The client's end of a TLS connection, for links to other relays."""

import socket

from derp.net.address import Endpoint
from derp.net.budgets import ReadBudget
from derp.net.tls import TLSTransport
from derp.net.tlsengine import Hold, Piece, TLSEngine


class TLSClientTransport(TLSTransport):
    """The client's end, which verifies the server's certificate by the engine's context.

    `hostname` has to be in the certificate: a name, or an IP address without brackets.
    """

    __slots__ = ("_hostname",)

    def __init__(
        self,
        sock: socket.socket,
        remote: Endpoint,
        local: Endpoint,
        engine: TLSEngine,
        hostname: str,
    ) -> None:
        super().__init__(sock, remote, local, engine)
        self._hostname = hostname

    async def _start(self, _hold: Hold, _budget: ReadBudget) -> Piece:
        """Make the SSL object; a client sends first."""
        engine = self._engine
        self._ssl = engine.context.wrap_bio(
            engine.incoming, engine.outgoing, server_hostname=self._hostname
        )
        return b""
