"""The connected clients as an operator sees them: who, from where, how much, how fast.

Nothing is counted for this on the packet path but what is counted anyway: bytes are the kernel's,
asked for each client when the list is made, a page of clients in each turn of the event loop.
"""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final

import attrs
import trio

from derp.accounts.counts import Period
from derp.session.client import Client
from derp.session.state import RelayState

CLIENTS_PER_PAGE: Final = 64
"""Clients that are asked about in one turn of the event loop."""
COUNTED_PER_TURN: Final = 1000
"""Clients whose keys are counted in one turn."""
QUEUED_PER_PAGE: Final = 10_000
"""Queued packets that are looked at in one turn, or some more: those of one client."""


@attrs.frozen(kw_only=True)
class ClientStatus:
    """One connection that has logged in."""

    connection: str
    """Distinguishes the connections of a relay, those that have ended included."""
    key: bytes
    """The node key, 32 bytes."""
    label: str
    """As in the policy; empty for none."""
    remote: str
    """The address that the client comes from, `ip:port` or `[ip6]:port`."""
    since: int
    """Unix time of its login, in seconds."""
    home: bool
    """Whether the client says that this relay is its home."""
    mesh: bool
    """Whether it is a relay of the mesh, which no policy binds."""
    duplicate: bool
    """Whether its key has other connections to this relay."""
    worker: int
    """The number of the worker that serves it, from 0."""
    sent: int
    """Bytes to the client, that it has acknowledged."""
    received: int
    """Bytes from the client."""
    packets_sent: int
    packets_received: int
    packets_dropped: int
    """Packets that were for this client, and dropped in its queue or as it left."""
    queued_bytes: int
    """Bytes of the frames that wait for it."""
    queued_packets: int
    limit: int | None
    """The rate limit in force, in bytes a second; None for none."""
    used_day: int | None
    """Bytes of the key in the current UTC day, as in the accounts; None where none are kept."""
    used_month: int | None
    quota: int | None
    """The bytes that the policy lets the key use in a `quota_period`; None for no quota."""
    quota_period: str
    """`day` or `month`; empty without a quota."""

    def to_json(self) -> Any:
        """Return the status as a message for another process of this relay."""
        return [*attrs.astuple(attrs.evolve(self, key=self.key.hex()))]  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, message: Any) -> "ClientStatus":
        """Undo `to_json`."""
        names = [field.name for field in attrs.fields(cls)]
        values = dict(zip(names, message, strict=True))
        return cls(**{**values, "key": bytes.fromhex(values["key"])})


@attrs.frozen
class Listing:
    """The clients of a relay."""

    clients: Sequence[ClientStatus]
    silent: Sequence[int] = ()
    """The numbers of the workers that did not answer in time, whose clients are missing."""


Cursor = float | None
"""The position in a list: after the clients that connected at that time of Trio's clock.

None for the beginning of the list, and for its end.
"""
ReadPage = Callable[[Cursor], Awaitable[tuple[list[ClientStatus], Cursor]]]


async def client_statuses(state: RelayState) -> list[ClientStatus]:
    """Return the clients of this process, the one connected longest first; other tasks run between.

    `duplicate` is set for keys that have several connections to this process.
    """

    async def read(after: Cursor) -> tuple[list[ClientStatus], Cursor]:
        await trio.lowlevel.checkpoint()
        return page(state, after)

    return await read_all(read)


async def listing(state: RelayState) -> Listing:
    """Return the clients of a relay that is this process."""
    return Listing(await client_statuses(state))


async def read_all(read: ReadPage) -> list[ClientStatus]:
    """Return the clients of all pages of one process."""
    found, after = await read(None)
    while after is not None:
        more, after = await read(after)
        found += more
    return found


def page(state: RelayState, after: Cursor) -> tuple[list[ClientStatus], Cursor]:
    """Return the next clients of this process, and where to go on; for one turn of the event loop.

    Clients that connect or leave between two pages keep no other from being listed once.
    `duplicate` is set for keys that have several connections to this process.
    """
    # In the order of their logins.
    members = [*state.hub.members]
    start = 0 if after is None else bisect_right(members, after, key=attrgetter("connected_at"))
    epoch, queued = time.time() - trio.current_time(), 0
    found: list[ClientStatus] = []
    last = 0.0
    for client in islice(members, start, None):
        is_full = len(found) >= CLIENTS_PER_PAGE or queued >= QUEUED_PER_PAGE
        # Not between two of the same time, or the next page would leave out the second.
        if is_full and client.connected_at > last:
            return found, last
        found.append(_status(state, client, epoch))
        queued += found[-1].queued_packets
        last = client.connected_at
    return found, None


async def with_duplicates(statuses: Iterable[ClientStatus]) -> list[ClientStatus]:
    """Return the clients of all workers, with `duplicate` set for keys that several have.

    Other tasks run between.
    """
    found = [*statuses]
    counts: Counter[bytes] = Counter()
    for start in range(0, len(found), COUNTED_PER_TURN):
        counts.update(status.key for status in found[start : start + COUNTED_PER_TURN])
        await trio.lowlevel.checkpoint()
    copied = 0
    for number, status in enumerate(found):
        if counts[status.key] > 1 and not status.duplicate:
            found[number] = attrs.evolve(status, duplicate=True)
            copied += 1
            if not copied % CLIENTS_PER_PAGE:
                await trio.lowlevel.checkpoint()
    return found


def _status(state: RelayState, client: Client, epoch: float) -> ClientStatus:
    """Return the status of one client; `epoch` is the Unix time when Trio's clock was 0."""
    client.note_bytes()
    sent, received = client.wire_bytes
    entry = state.policy.of(client.key)
    queue = client.send_queue
    queued_packets, queued_bytes = (0, 0) if queue is None else queue.waiting()
    used_day = used_month = None
    if state.accounts is not None:
        used_day = state.accounts.used(client.key, Period.DAY)
        used_month = state.accounts.used(client.key, Period.MONTH)
    quota = None if client.can_mesh else entry.quota
    return ClientStatus(
        connection=f"{state.hub.worker} {id(client):x} {client.connected_at}",
        key=client.key,
        label=entry.label,
        remote=str(client.transport.remote),
        since=round(epoch + client.connected_at),
        home=client.preferred,
        mesh=client.can_mesh,
        duplicate=client.key in state.hub.duplicates,
        worker=state.hub.worker,
        sent=sent,
        received=received,
        packets_sent=client.packets_sent,
        packets_received=client.packets_received,
        packets_dropped=client.packets_dropped,
        queued_bytes=queued_bytes,
        queued_packets=queued_packets,
        limit=None if client.bucket is None else int(client.bucket.rate),
        used_day=used_day,
        used_month=used_month,
        quota=None if quota is None else quota.size,
        quota_period="" if quota is None else quota.period,
    )
