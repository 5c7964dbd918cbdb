"""The one task that acts on time for all clients: keep-alives, stuck peers, round-trip times."""

import struct
from typing import Final, NoReturn

import trio

from derp.connection import Connection
from derp.errors import WriteTimeout
from derp.net.tcp import TCPTransport
from derp.server import ROUND_TRIP_EVERY, Server
from derp.wire.frames import KEEP_ALIVE

TICK: Final = 0.5
"""Seconds between looks at the clock."""

_RTT = struct.Struct("=I")
_RTT_OFFSET: Final = 68
"""Of tcpi_rtt, in microseconds, in Linux's `struct tcp_info`."""


async def run(server: Server) -> NoReturn:
    """Look at the clock for ever."""
    start = trio.current_time()
    ticks = 0
    while True:
        ticks += 1
        await trio.sleep_until(start + ticks * TICK)
        now = trio.current_time()
        end_stuck(server, now)
        for connection in server.keep_alives.due(now):
            server.schedule_keep_alive(connection, now)
            connection.send_control(KEEP_ALIVE)
        for connection in server.round_trips.due(now):
            server.round_trips.set(connection, now + ROUND_TRIP_EVERY)
            sample_round_trip(connection)


def end_stuck(server: Server, now: float) -> None:
    """End the connections whose peers have taken nothing for longer than the write timeout."""
    for sender in list(server.sending):
        timeout = sender.write_timeout
        taken, since = sender.progress
        if sender.transport.taken != taken:
            sender.progress = (sender.transport.taken, now)
        elif timeout and now - since > timeout and sender.ending is None:
            server.metrics.sclient_write_timeouts += 1
            sender.end(WriteTimeout(f"the peer took nothing for {timeout:g} s"))


def sample_round_trip(connection: Connection) -> None:
    """Count the kernel's estimate of the round-trip time of a connection that is TCP."""
    metrics = connection.server.metrics
    transport = connection.transport
    try:
        info = transport.tcp_info() if isinstance(transport, TCPTransport) else b""
        microseconds: int = _RTT.unpack_from(info, _RTT_OFFSET)[0]
    except (OSError, struct.error):
        metrics.no_round_trip(tcp=True)
        return
    metrics.round_trip(microseconds / 1e6)
