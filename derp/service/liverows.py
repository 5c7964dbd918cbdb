"""The rows of clients on the live page. Sans-I/O."""

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from derp.accounts.counts import Period
from derp.http.liveview import Cell, ClientRow, SortKeys, age_text
from derp.quantities import rate, size
from derp.service.clients import ClientStatus
from derp.wire.keys import node_public_text, short_key

_NOTHING: Final = "-"


Speed = tuple[float, float] | None
"""Bytes a second to a client and from it; None while that is not known."""


def sort_keys(status: ClientStatus, speed: Speed, number: int) -> SortKeys:
    """Return the sort keys of a client, the one at `number` of the sample."""
    return SortKeys(
        number=number,
        connection=status.connection,
        name=status.label or short_key(status.key),
        total=status.sent + status.received,
        rate=0.0 if speed is None else sum(speed),
        since=status.since,
    )


def client_row(status: ClientStatus, speed: Speed, now: float, *, workers: bool) -> ClientRow:
    """Return the row of a client.

    `now`: Unix time. `workers`: whether the row says which worker serves the client.
    """
    key = short_key(status.key)
    # Without the memory address that is in the name of the connection.
    name = blake2b(status.connection.encode(), digest_size=8).hexdigest()
    since = datetime.fromtimestamp(status.since, UTC)
    to_client, from_client = (_NOTHING, _NOTHING) if speed is None else map(rate, speed)
    cells: tuple[Cell, ...] = (
        (status.label or key, " · ".join(_notes(status, key))),
        (status.remote, f"worker {status.worker}" if workers else ""),
        (f"{since:%Y-%m-%d %H:%M}", age_text(now - status.since)),
        (from_client, size(status.received)),
        (to_client, size(status.sent)),
        (
            size(status.queued_bytes) if status.queued_bytes else _NOTHING,
            f"{status.packets_dropped:,} dropped" if status.packets_dropped else "",
        ),
    )
    return ClientRow(
        id=name,
        key=node_public_text(status.key),
        cells=cells,
    )


def _notes(status: ClientStatus, key: str) -> list[str]:
    notes = {
        key: bool(status.label),
        "home": status.home,
        "mesh": status.mesh,
        "twice": status.duplicate,
        "over quota": _is_over_quota(status),
    }
    return [note for note, holds in notes.items() if holds]


def _is_over_quota(status: ClientStatus) -> bool:
    used = status.used_month if status.quota_period == Period.MONTH else status.used_day
    return status.quota is not None and used is not None and used >= status.quota
