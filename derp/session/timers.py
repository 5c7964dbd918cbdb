"""The timers in one task: keep-alives, send queues, stuck peers, round-trip times.

A send queue drops stale packets when it is used; here, all send queues drop theirs.
"""

import random
import struct
from typing import Final, NoReturn

import attrs
import trio

from derp.errors import WriteTimeout
from derp.net import tcpinfo
from derp.net.tcp import TCPTransport
from derp.relay.timerwheel import TimerWheel
from derp.session.client import Client
from derp.session.sender import Sender, SendTasks
from derp.wire import frames

KEEP_ALIVE: Final = 40.0
"""Seconds between keep-alives, at least (Go: derp.KeepAlive, 60).

With jitter and lateness a client gets a frame at least every 47 s, before proxies end an idle
connection: by default Debian's HAProxy after 50 s; nginx, Apache httpd and AWS's application load
balancer after 60 s; Cloudflare after 100 s; other load balancers, Envoy, and providers' NAT after
minutes. Google's HTTP load balancers end an upgraded connection after 30 s in any case. Each
keep-alive wakes a phone's radio.
"""
KEEP_ALIVE_JITTER: Final = 5.0
ROUND_TRIP_EVERY: Final = 10.0
"""Seconds between samples of a client's round-trip time (Go: startStatsLoop)."""
TICK: Final = 0.5
"""Seconds between two runs of the timers."""
CHECKS_PER_TURN: Final = 1000
"""Peers checked and trains dropped before other tasks run: about a millisecond."""
END_COST: Final = 100
"""The number of checks that cost as much as a disconnection."""
CLIENTS_PER_TURN: Final = 100
"""Clients sent a keep-alive, or sampled, before other tasks run."""


@attrs.define(eq=False)
class Timers:
    """The timers of all clients and busy peers."""

    send_tasks: SendTasks
    keep_alives: TimerWheel[Client] = attrs.field(init=False, factory=TimerWheel)
    round_trips: TimerWheel[Client] = attrs.field(init=False, factory=TimerWheel)

    def add(self, client: Client, now: float) -> None:
        """Schedule a client's keep-alives and round-trip samples."""
        self.add_keep_alive(client, now)
        if isinstance(client.transport, TCPTransport):
            self.round_trips.set(client, now + ROUND_TRIP_EVERY)
        else:
            client.metrics.no_round_trip(tcp=False)

    def add_keep_alive(self, client: Client, now: float) -> None:
        """Schedule a client's next keep-alive only."""
        jitter = random.uniform(0, KEEP_ALIVE_JITTER)  # noqa: S311 -- spreads load, hides nothing
        self.keep_alives.set(client, now + KEEP_ALIVE + jitter)

    def discard(self, client: Client) -> None:
        """Schedule nothing more for a client."""
        self.keep_alives.discard(client)
        self.round_trips.discard(client)

    async def run(self) -> NoReturn:
        """Run the timers, for ever."""
        start = trio.current_time()
        ticks = 0
        while True:
            ticks += 1
            await trio.sleep_until(start + ticks * TICK)
            now = trio.current_time()
            await self.check_queues(now)
            for number, client in enumerate(self.keep_alives.due(now), 1):
                self.add_keep_alive(client, now)
                client.send_control(frames.KEEP_ALIVE)
                if not number % CLIENTS_PER_TURN:
                    await trio.lowlevel.checkpoint()
            for number, client in enumerate(self.round_trips.due(now), 1):
                self.round_trips.set(client, now + ROUND_TRIP_EVERY)
                sample_round_trip(client)
                if not number % CLIENTS_PER_TURN:
                    await trio.lowlevel.checkpoint()

    async def check_queues(self, now: float) -> None:
        """Drop packets that have waited too long, and disconnect stuck peers."""
        done, sending = 0, self.send_tasks.sending
        for sender in list(sending):
            while sender in sending:
                if done >= CHECKS_PER_TURN:
                    done = 0
                    await trio.lowlevel.checkpoint()
                    continue
                if end_if_stuck(sender, now):
                    done += END_COST
                queue = sender.send_queue
                done += 1 + (queue.expire(now, max(1, CHECKS_PER_TURN - done)) if queue else 0)
                if done < CHECKS_PER_TURN:
                    break


def end_if_stuck(sender: Sender, now: float) -> bool:
    """Disconnect a peer if it took no byte for its write timeout; return whether it was stuck."""
    timeout = sender.write_timeout
    taken, since = sender.progress
    if sender.transport.bytes_written != taken:
        sender.progress = (sender.transport.bytes_written, now)
    elif timeout and now - since > timeout and sender.ending is None:
        sender.metrics.sclient_write_timeouts += 1
        sender.end(WriteTimeout(f"the peer took nothing for {timeout:g} s"))
        return True
    return False


def sample_round_trip(client: Client) -> None:
    """Count the kernel's estimate of a client's round-trip time, if it uses no websocket."""
    metrics, transport = client.metrics, client.transport
    try:
        info = transport.tcp_info() if isinstance(transport, TCPTransport) else b""
        seconds = tcpinfo.round_trip(info)
    except (OSError, struct.error):
        metrics.no_round_trip(tcp=True)
        return
    metrics.round_trip(seconds)
