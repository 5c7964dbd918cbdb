"""Acceptors of a relay that hides: `-home hidden`."""

import contextlib
from collections.abc import Sequence
from functools import partial

import attrs
import trio

from derp.http.backend import Backend
from derp.http.hidden import clients, server
from derp.http.message import BadRequest, Request
from derp.net.tcp import TCPTransport
from derp.relay.pending import Pending
from derp.service.accept import Acceptor
from derp.service.handshakes import Handshakes
from derp.service.proxies import ClientAddresses


def hide(acceptor: Acceptor, backend: Backend, *, plain: bool = False) -> Acceptor:
    """Return an acceptor that answers only the requests of clients as what they are.

    `plain` is for the plain port beside HTTPS.
    """

    async def serve(
        transport: TCPTransport,
        addresses: ClientAddresses,
        /,
        *,
        pending: Pending,
        to_https: bool = False,
    ) -> bytes | None:
        def is_client(request: Request) -> bool:
            # Whom a proxy speaks for decides who may see /debug/.
            try:
                resolved = acceptor.proxies.resolve(addresses, request)
                return clients.is_from_client(backend, resolved, plain=plain)
            finally:
                # What is not answered is nobody's try, and may be followed by another's request.
                addresses.client = addresses.header_client

        def count(headers: Sequence[tuple[bytes, bytes]]) -> None:
            # As from any relay: a stranger behind a proxy has no more than one without.
            with contextlib.suppress(BadRequest):
                client = acceptor.proxies.client(addresses, headers)
                if addresses.proxy:
                    pending.identify(client.host, trio.current_time())

        return await server.serve(
            transport,
            is_client,
            acceptor.state.view,
            count=count,
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
