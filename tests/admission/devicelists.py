"""What stands for the fetcher of a list of devices."""

import math

import trio

from derp.admission.devicelist import DeviceList
from derp.devices.kept import KeptList
from derp.devices.model import Devices
from derp.errors import DevicesFailed

EPOCH = 1_790_000_000.0
DAY = 24 * 3600.0
AWAY = DevicesFailed("api.test can't be asked (Connection refused)", "unreachable")


def wall() -> float:
    """Unix time by the clock that jumps."""
    return EPOCH + trio.current_time()


class Fetcher:
    """Lists `devices`, or fails."""

    def __init__(self, *keys: bytes, takes: float = 0.1) -> None:
        self.devices: dict[bytes, float] = dict.fromkeys(keys, math.inf)
        self.takes = takes
        self.failure: DevicesFailed | None = None
        self.began: list[float] = []

    async def fetch(self) -> Devices:
        self.began.append(trio.current_time())
        devices = Devices(dict(self.devices), wall())
        await trio.sleep(self.takes)
        if self.failure is not None:
            raise self.failure
        return devices


def make_list(
    fetcher: Fetcher,
    *,
    keep: float = DAY,
    devices: Devices | None = None,
    store: KeptList | None = None,
    name: str = "tailnet:example.com",
) -> DeviceList:
    return DeviceList(name, fetcher, keep, devices=devices, store=store, wall=wall)
