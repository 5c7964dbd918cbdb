"""The devices that an API lists, kept up to date: fetched, told to the checker, kept on disk."""

import math
from datetime import UTC, datetime
from typing import Final, NoReturn

import trio

from derp import log
from derp.admission.checker import Checker
from derp.admission.devicelist import POLL_EVERY, DeviceList
from derp.admission.listkeeper import Recheck
from derp.net.oserrors import plain_reason

SAVE_EVERY: Final = 600.0
"""Seconds between writes of a list that has not changed: the file says when it was fetched."""
SAME_TROUBLE_EVERY: Final = 3600.0
TROUBLE_EVERY: Final = 10.0
"""Seconds between log lines about the same trouble with an API, and about any."""

logger = log.get("admit")


class DeviceWatch:
    """The task that keeps one list up to date."""

    def __init__(self, checker: Checker, source: DeviceList) -> None:
        self._checker = checker
        self._source = source
        self._usable = set[bytes]()
        if source.devices is not None:
            self._usable = source.devices.usable(source.wall())
        self._saved_at = -math.inf
        self._save_failure = ""
        self._logged, self._logged_at = "", -math.inf
        self._has_lapsed = self._was_empty = False
        self._gone = set[bytes]()
        self._has_gone = trio.Event()

    async def run(self, recheck: Recheck) -> NoReturn:
        """Fetch again and again; have clients that the list no longer admits asked about again."""
        source = self._source
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recheck_gone, recheck)
            while True:
                was_fetched = await source.next_fetch(trio.current_time() + POLL_EVERY)
                if was_fetched:
                    self._report()
                has_changed = self._compare()
                if was_fetched and source.trouble is None:
                    await self._save(has_changed=has_changed)

    def _report(self) -> None:
        """Tell the operator, and the pages, how the fetch went."""
        source, troubles, now = self._source, self._checker.troubles, trio.current_time()
        if source.trouble is None:
            if self._logged:
                logger.info("devices are listed again", source=source.name)
            self._logged, self._has_lapsed = "", False
            troubles.pop(source.name, None)
            is_empty = source.devices is not None and not source.devices.expiries
            if is_empty and not self._was_empty:
                cure = "check the name, the credential and -verify-tailnet-tags"
                logger.warning(
                    "no device of the list may use the relay", source=source.name, cure=cure
                )
            self._was_empty = is_empty
            return
        reason = troubles[source.name] = str(source.trouble)
        has_lapsed = source.wall() >= source.counts_until
        wait = SAME_TROUBLE_EVERY if reason == self._logged else TROUBLE_EVERY
        if now - self._logged_at < wait and has_lapsed == self._has_lapsed:
            return
        self._logged, self._logged_at, self._has_lapsed = reason, now, has_lapsed
        event, until = "can't list devices, so no client is admitted for being one", None
        if not has_lapsed:
            event = "can't list devices, so the last list counts"
            until = datetime.fromtimestamp(source.counts_until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        logger.error(event, source=source.name, reason=reason, until=until)

    def _compare(self) -> bool:
        """Compare the list, and what has expired, with what it was; return whether it differs."""
        source = self._source
        if source.devices is None:
            return False
        usable = source.devices.usable(source.wall())
        added, gone = usable - self._usable, self._usable - usable
        source.gone = gone
        if not added and not gone:
            return False
        self._usable = usable
        self._checker.forget()
        logger.info(
            "new list of devices",
            source=source.name,
            devices=len(usable),
            added=len(added),
            removed=len(gone),
        )
        self._gone = (self._gone | gone) - added
        if self._gone:
            self._has_gone.set()
        return True

    async def _recheck_gone(self, recheck: Recheck) -> NoReturn:
        """Recheck clients whose keys are gone; keys that go meanwhile come next, all at once."""
        while True:
            await self._has_gone.wait()
            gone, self._gone, self._has_gone = self._gone, set(), trio.Event()
            await recheck(gone)

    async def _save(self, *, has_changed: bool) -> None:
        devices, store, now = self._source.devices, self._source.store, trio.current_time()
        is_due = has_changed or now - self._saved_at >= SAVE_EVERY
        if store is None or devices is None or not is_due:
            return
        failure = ""
        try:
            await trio.to_thread.run_sync(store.save, devices, abandon_on_cancel=True)
        except OSError as error:
            failure = plain_reason(error)
        self._saved_at = now
        if failure and failure != self._save_failure:
            logger.warning(
                "the devices can't be kept for a restart",
                source=self._source.name,
                path=str(store.path),
                reason=failure,
                cure="let derper write to the directory of its key file",
            )
        self._save_failure = failure
