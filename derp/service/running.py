"""The relay of one process while it serves: its nurseries, and what its services share."""

import time
from collections.abc import Awaitable, Callable

import attrs
import trio

from derp.config import Config
from derp.http.bootstrap_dns import BootstrapDNS
from derp.mesh.keeper import Keeper
from derp.metrics import process
from derp.metrics.history import History
from derp.net.descriptors import Descriptors
from derp.service.proxies import Proxies
from derp.service.startup import StartupResources
from derp.session.state import RelayState
from stun.stats import Stats


async def run_within(scope: trio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    """Run a task that ends when `scope` is cancelled."""
    with scope:
        await task()


@attrs.frozen
class Age:
    """The time and the memory use at the start of the process, and the time since."""

    started: float = attrs.field(init=False, factory=time.time)
    """Unix time, in seconds."""
    memory: int = attrs.field(init=False, factory=process.resident_bytes)
    """Bytes."""
    _clock_at_start: float = attrs.field(init=False, factory=trio.current_time)

    @property
    def seconds(self) -> float:
        """Seconds since the start, by a clock that nobody sets."""
        return trio.current_time() - self._clock_at_start


@attrs.frozen(kw_only=True)
class RunningRelay:
    """A relay that serves. Its nurseries end in the order services, connections, root."""

    config: Config
    resources: StartupResources
    state: RelayState
    root: trio.Nursery
    """Owns the tasks that run to the end of the process."""
    connections: trio.Nursery
    """Owns what the drain cancels: the connections, and the links to other relays."""
    services: trio.Nursery
    """Owns the tasks that a stop cancels first."""
    orders: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancelled at a stop. What an order of a certificate leaves behind it is removed while the
    clients are told, which waits for no name server."""
    proxies: Proxies = attrs.field(factory=Proxies)
    stun_stats: Stats = attrs.field(factory=Stats)
    bootstrap_dns: BootstrapDNS = attrs.field(factory=BootstrapDNS)
    links: list[Keeper] = attrs.field(factory=list)
    """The keepers of links to other relays."""
    descriptors: Descriptors = attrs.field(factory=Descriptors)
    age: Age = attrs.field(factory=Age)
    history: History = attrs.field(factory=History)
    """The traffic of this process."""
