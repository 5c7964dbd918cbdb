"""/debug/traffic: the bytes that each client has sent and received, as the kernel counts them."""

import json
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import trio

from derp.net import tcpinfo
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire.keys import node_public_text

TRAFFIC_EVERY: Final = 2.0
"""Seconds between two samples (Go: minTimeBetweenLogs)."""


class Traffic(NamedTuple):
    """The bytes sent to a client and received from it; zeros where they are not known."""

    connection: str
    """Distinguishes the connections of one process, those that have ended included."""
    key: bytes
    sent: int
    received: int
    unique_senders: int
    """How many keys the client has had packets from."""


def traffic(state: RelayState) -> list[Traffic]:
    """Return the bytes of each client of this process."""

    def one(member: Client) -> Traffic:
        connection = f"{id(member):x} {member.connected_at}"
        return Traffic(connection, member.key, *sent_and_received(member), len(member.saw_src))

    return [one(member) for member in state.hub.members]


async def traffic_lines(
    sample: Callable[[], Awaitable[Sequence[Traffic]]],
) -> AsyncGenerator[bytes, None]:
    """Yield, every TRAFFIC_EVERY seconds, a JSON line for each client whose bytes have changed.

    Go: ServeDebugTraffic.
    """
    before: dict[str, tuple[int, int]] = {}
    while True:
        now = await sample()
        lines = [
            json.dumps(
                {
                    "Sent": each.sent,
                    "Recv": each.received,
                    "Key": node_public_text(each.key),
                    "UniqueSenders": each.unique_senders,
                }
            )
            for each in now
            if before.get(each.connection, (0, 0)) != (each.sent, each.received)
        ]
        before = {each.connection: (each.sent, each.received) for each in now}
        yield "".join(f"{line}\n" for line in [*lines, ""]).encode()
        await trio.sleep(TRAFFIC_EVERY)


def sent_and_received(client: Client) -> tuple[int, int]:
    """Return the bytes sent to a client and received from it; zeros where they are not known."""
    try:
        return tcpinfo.sent_and_received(client.transport.tcp_info())
    except (OSError, struct.error):
        return 0, 0
