"""The tasks that keep the checker up to date; the policy has one of its own (policykeeper)."""

import trio

from derp.admission.checker import Checker
from derp.admission.devicewatch import DeviceWatch
from derp.admission.listkeeper import ListRequest, Recheck, keep_list


async def keep_checker(
    checker: Checker, requests: trio.MemoryReceiveChannel[ListRequest], recheck: Recheck
) -> None:
    """Probe tailscaled once, and keep the lists up to date.

    `requests` are those about the allow-list; `recheck` gets the keys that a list no longer has.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.probe)
        if (allowlist := checker.sources.allowlist) is not None:
            nursery.start_soon(keep_list, checker, allowlist, requests, recheck)
        for source in checker.sources.devices:
            nursery.start_soon(DeviceWatch(checker, source).run, recheck)
