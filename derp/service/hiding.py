"""Acceptors of a relay that hides: `-home hidden`."""

from functools import partial

import attrs

from derp.http.backend import Backend
from derp.http.hidden import clients, server
from derp.http.message import Request
from derp.net.tcp import TCPTransport
from derp.relay.pending import Pending
from derp.service.accept import Acceptor
from derp.service.handshakes import Handshakes
from derp.service.proxies import Origin


def hide(acceptor: Acceptor, backend: Backend, *, plain: bool = False) -> Acceptor:
    """Return an acceptor that answers only the requests of clients as what they are.

    `plain` is for the plain port beside HTTPS.
    """

    async def serve(
        transport: TCPTransport,
        origin: Origin,
        /,
        *,
        pending: Pending,
        to_https: bool = False,
    ) -> bytes | None:
        def is_client(request: Request) -> bool:
            # Whom a proxy speaks for decides who may see /debug/.
            try:
                resolved = acceptor.proxies.resolve(origin, request)
                return clients.is_from_client(backend, resolved, plain=plain)
            finally:
                # What is not answered is nobody's try, and may be followed by another's request.
                origin.client = origin.connected

        return await server.serve(
            transport,
            is_client,
            acceptor.state.view,
            pending=pending,
            known=None if to_https else acceptor.known,
            to_https=to_https,
        )

    return attrs.evolve(
        acceptor,
        route=partial(clients.route, backend, plain=plain),
        handshakes=Handshakes(server.NGINX.header),
        hide=serve,
    )
