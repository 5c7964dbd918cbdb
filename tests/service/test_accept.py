"""The connection task: what an ended connection leaves behind."""

import gc
import socket

import nacl.public
import pytest
import trio
import trio.testing

from derp.http.message import Upgrade
from derp.log import Coalescer
from derp.net.address import endpoint
from derp.service.accept import Acceptor
from derp.session.client import Client
from derp.session.state import RelayState
from tests.memory_transport import memory_pair
from tests.patience import PATIENCE
from tests.peers import SEND, Peer, frame

REQUEST = b"GET /derp HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behind", "reset", "reason"),
    [
        (b"", False, "closed"),
        (b"", True, "peer_vanished"),
        (frame(SEND, b"short"), False, "protocol_violation"),
    ],
)
async def test_an_ended_connection_is_gone_without_the_garbage_collector(
    behind: bytes, reset: bool, reason: str
) -> None:
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            state = RelayState(nacl.public.PrivateKey.generate(), nursery, write_timeout=2)
            nursery.start_soon(state.poller.run)
            nursery.start_soon(state.prelogin.run)
            acceptor = Acceptor(
                state=state,
                nursery=nursery,
                route=lambda _: Upgrade(
                    websocket=False, fast_start=True, ideal_node="", answer=b""
                ),
                engine=None,
                limit=None,
                refusals=Coalescer(),
            )
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                accepted, address = listener.accept()
            accepted.setblocking(False)
            acceptor.accept(accepted, endpoint(address))
            info = Peer(memory_pair()[0]).client_info(state.public_key)
            client.sendall(REQUEST + info)
            with trio.fail_after(PATIENCE):
                while not state.hub.members:
                    await trio.testing.wait_all_tasks_blocked()
                assert state.poller.busy_tasks == 0
                # To close with something unread would be a reset.
                client.recv(1 << 16)
                client.sendall(behind)
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if not behind:
                    client.close()
                while not state.metrics.connection_ends[reason]:
                    await trio.testing.wait_all_tasks_blocked()
            client.close()
            assert state.poller.busy_tasks == 0
            nursery.cancel_scope.cancel()
        assert not [found for found in gc.get_objects() if isinstance(found, Client)]
    finally:
        gc.enable()
