"""Accounts with workers: the supervisor has the file, and each worker sends it what it has counted.

    worker                                    supervisor
    Accounts ─► WorkerSink ── accounts.add ──► SupervisorAccounts ─► Accounts ─► file

A message is {"worker": 0, "process": TEXT, "number": 7, "rows": [[DAY, KEY, COUNT, …], …]}; its
answer {"today": DAY, "used": {KEY: [bytes of the day, bytes of the month], …}}. One that was not
answered is sent again as it was, before anything else, and added only once, by its number.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import attrs

from derp.accounts.counts import Counts, Period
from derp.accounts.keeper import Accounts, UsedBytes
from derp.accounts.unwritten import Unwritten
from derp.errors import AccountsFailed, RPCFailed
from derp.workers.rpc import Call, Handler, Json

ROWS_AT_ONCE: Final = 1000
"""Most rows in one message."""

_ADD: Final = "accounts.add"


class WorkerSink:
    """A worker's sink: sends all counts to the supervisor."""

    name = "the supervisor of the workers"
    is_shared = True

    def __init__(self, call: Call, index: int) -> None:
        self._call = call
        self._index = index
        self._process = secrets.token_hex(8)
        self._number = 0
        self._unanswered: Json = None

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> UsedBytes:  # noqa: ARG002 -- all are
        """Send all counts, a message at a time; see derp.accounts.keeper.Sink."""
        if self._unanswered is not None:
            await self._send()
        rows = list(unwritten.take())
        usage: dict[bytes, tuple[int, int]] = {}
        for start in range(0, len(rows), ROWS_AT_ONCE):
            self._number += 1
            self._unanswered = {
                "worker": self._index,
                "process": self._process,
                "number": self._number,
                "rows": [
                    [day, key.hex(), *counts]
                    for day, key, counts in rows[start : start + ROWS_AT_ONCE]
                ],
            }
            try:
                answer = await self._send()
            except AccountsFailed:
                for day, key, counts in rows[start + ROWS_AT_ONCE :]:
                    unwritten.add(key, counts, day)
                raise
            # At midnight the supervisor may still count another day, or do so already. What is
            # not learned now, is with the next flush.
            if answer["today"] == today:
                found = answer["used"].items()
                usage |= {bytes.fromhex(key): (day, month) for key, (day, month) in found}
        return usage

    async def close(self) -> None:
        """Do nothing."""

    async def _send(self) -> Json:
        try:
            answer = await self._call(_ADD, self._unanswered)
        except RPCFailed as error:
            raise AccountsFailed(str(error), "see why it does not answer") from error
        self._unanswered = None
        return answer


@attrs.define
class SupervisorAccounts:
    """The supervisor's side. `handlers` are for the RPC connection of each worker."""

    accounts: Accounts
    handlers: dict[str, Handler] = attrs.field(init=False)
    _last: dict[int, tuple[str, int]] = attrs.field(init=False, factory=dict)
    """The process and the number of each worker's last message."""

    def __attrs_post_init__(self) -> None:
        self.handlers = {_ADD: self._add}

    async def _add(self, body: Json) -> Json:
        last = body["process"], body["number"]
        keys = [bytes.fromhex(key) for _, key, *_ in body["rows"]]
        if self._last.get(body["worker"]) != last:
            self._last[body["worker"]] = last
            for key, (day, _, *counts) in zip(keys, body["rows"], strict=True):
                self.accounts.add(key, Counts(*counts), day)
        used = self.accounts.used
        found = {key.hex(): [used(key, Period.DAY), used(key, Period.MONTH)] for key in keys}
        return {"today": self.accounts.today, "used": found}
