"""The one task that acts on time for all clients: keep-alives, queues, round-trip times.

A queue is looked at by whoever puts something in or takes something out. That of a peer which
hardly takes anything, and for which nothing comes any longer, is looked at here.
"""

import struct
from typing import Final, NoReturn

import trio

from derp.errors import WriteTimeout
from derp.net import tcpinfo
from derp.net.tcp import TCPTransport
from derp.session.client import Client
from derp.session.sender import Sender
from derp.session.state import ROUND_TRIP_EVERY, RelayState
from derp.wire.frames import KEEP_ALIVE

TICK: Final = 0.5
"""Seconds between looks at the clock."""
AT_ONCE: Final = 1000
"""Peers looked at, and runs dropped, before others have their turn: about a millisecond."""
END_COST: Final = 100
"""How many of these one end counts for."""
TOLD_AT_ONCE: Final = 100
"""Clients sent a keep-alive, or asked about, before others have their turn."""


async def run(state: RelayState) -> NoReturn:
    """Look at the clock for ever."""
    start = trio.current_time()
    ticks = 0
    while True:
        ticks += 1
        await trio.sleep_until(start + ticks * TICK)
        now = trio.current_time()
        await look_at_queues(state, now)
        for number, connection in enumerate(state.keep_alives.due(now), 1):
            state.schedule_keep_alive(connection, now)
            connection.send_control(KEEP_ALIVE)
            if not number % TOLD_AT_ONCE:
                await trio.lowlevel.checkpoint()
        for number, connection in enumerate(state.round_trips.due(now), 1):
            state.round_trips.set(connection, now + ROUND_TRIP_EVERY)
            sample_round_trip(connection)
            if not number % TOLD_AT_ONCE:
                await trio.lowlevel.checkpoint()


async def look_at_queues(state: RelayState, now: float) -> None:
    """Drop what has waited too long, and end the connections whose peers are stuck."""
    done = 0
    for sender in list(state.sending):
        while sender in state.sending:
            if done >= AT_ONCE:
                done = 0
                await trio.lowlevel.checkpoint()
                continue
            if end_if_stuck(sender, now):
                done += END_COST
            dropped = (
                sender.send_queue.expire(now, max(1, AT_ONCE - done)) if sender.send_queue else 0
            )
            done += 1 + dropped
            if done < AT_ONCE:
                break


def end_if_stuck(sender: Sender, now: float) -> bool:
    """End a connection whose peer has taken nothing for longer than the write timeout.

    Returns whether it was ended.
    """
    timeout = sender.write_timeout
    taken, since = sender.progress
    if sender.transport.bytes_written != taken:
        sender.progress = (sender.transport.bytes_written, now)
    elif timeout and now - since > timeout and sender.ending is None:
        sender.state.metrics.sclient_write_timeouts += 1
        sender.end(WriteTimeout(f"the peer took nothing for {timeout:g} s"))
        return True
    return False


def sample_round_trip(connection: Client) -> None:
    """Count the kernel's estimate of the round-trip time of a connection that is TCP."""
    metrics = connection.state.metrics
    transport = connection.transport
    try:
        info = transport.tcp_info() if isinstance(transport, TCPTransport) else b""
        seconds = tcpinfo.round_trip(info)
    except (OSError, struct.error):
        metrics.no_round_trip(tcp=True)
        return
    metrics.round_trip(seconds)
