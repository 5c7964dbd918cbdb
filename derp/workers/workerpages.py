"""A worker's pages: they show the whole relay, and so it asks the supervisor, who asks them all."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from derp.config import Config
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.routes import Awaited, StatusSource
from derp.mesh.keeper import Keeper
from derp.service.status import StatusView, Traffic, traffic_lines
from derp.session.state import RelayState
from derp.workers.rpc import Handler, Json
from derp.workers.snapshot import Snapshot, dump
from stun.server import Stats

SHARE: Final = "pages.snapshot"
"""Asks a worker what it has counted, and what it is like; see `derp.workers.snapshot`."""
CHECK: Final = "pages.check"
"""Asks a worker what is inconsistent: a walk over all its clients, in which no packet moves."""
TRAFFIC: Final = "pages.traffic"
"""Asks for `dump_traffic`: a worker of its clients, the supervisor of all."""
VARZ: Final = "pages.varz"
EXPVARS: Final = "pages.expvars"
FACTS: Final = "pages.facts"
PROBLEMS: Final = "pages.problems"
"""Ask the supervisor for what the relay's Site shows."""


@attrs.frozen
class WorkerPages:
    """What a worker answers: `site` to those who ask by HTTP, `handlers` to the supervisor."""

    site: StatusSource
    handlers: Mapping[str, Handler]


def make_pages(
    config: Config,
    state: RelayState,
    stats: Stats,
    names: BootstrapDNS,
    challenges: Mapping[str, str] | None,
    links: Sequence[Keeper],
    call: Callable[[str], Awaitable[Json]],
) -> WorkerPages:
    """Make a worker's pages. `call` asks the supervisor, and raises ControlLost where it can't.

    `challenges` is as in Site, `links` are those to other relays.
    """
    view = StatusView(config, state, stats, names, links=links)

    async def snapshot(_: Json) -> Json:
        return dump(take(view))

    async def check(_: Json) -> Json:
        return state.hub.check()

    async def traffic(_: Json) -> Json:
        return dump_traffic(view.traffic())

    async def ask_traffic() -> Sequence[Traffic]:
        return load_traffic(await call(TRAFFIC))

    site = StatusSource(
        hostname=config.tls.hostname,
        public_key=state.public_key,
        derp=config.general.derp,
        home=config.pages.home,
        bootstrap_dns=names,
        facts=Awaited(partial(call, FACTS)),
        varz=Awaited(partial(call, VARZ)),
        expvars=Awaited(partial(call, EXPVARS)),
        problems=Awaited(partial(call, PROBLEMS)),
        traffic=lambda: traffic_lines(ask_traffic),
        challenges=challenges,
    )
    return WorkerPages(site, {SHARE: snapshot, CHECK: check, TRAFFIC: traffic})


def take(view: StatusView) -> Snapshot:
    """Return what this process has to show at this moment."""
    hub = view.state.hub
    # All that are at other workers as well, without a look at each client.
    elsewhere = [*hub.passive, *(hub.active.keys() & hub.other_workers.best.keys())]
    repeated = dict.fromkeys(elsewhere, 1)
    for key, duplicates in hub.duplicates.items():
        repeated[key] = len(duplicates.members)
    return Snapshot(
        pid=os.getpid(),
        taken=time.monotonic(),
        metrics=view.metrics(),
        gauges=view.gauges(),
        stun=view.stats,
        names=view.names,
        members=len(hub.members),
        repeated=repeated,
        links=view.link_facts(),
    )


def dump_traffic(traffic: Sequence[Traffic]) -> Json:
    """Return what JSON can carry of it."""
    return [(connection, key.hex(), *figures) for connection, key, *figures in traffic]


def load_traffic(found: Json) -> list[Traffic]:
    """Undo `dump_traffic`."""
    return [Traffic(*each)._replace(key=bytes.fromhex(each[1])) for each in found]
