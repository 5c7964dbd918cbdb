"""The relay as one process: obeys signals, and does a supervisor's work itself."""

import contextlib
from functools import partial
from typing import Final

import trio

from derp.admission.checker import Checker
from derp.admission.listkeeper import ListRequest
from derp.admission.policykeeper import PolicyRequest, keep_policy, policy_of
from derp.admission.policysource import PolicySource
from derp.config import Config
from derp.policy.model import Policy
from derp.service import control, monitoring
from derp.service.announce import announce, announce_node
from derp.service.clients import listing
from derp.service.control import ControlBackend
from derp.service.interpreter import logging_started, tune_garbage_collector
from derp.service.keybook import KeyBook
from derp.service.keylist import has_list, list_to_steer
from derp.service.monitorpages import standalone_backend
from derp.service.reload import reload_rate_limit
from derp.service.run import serve
from derp.service.running import RunningRelay, run_within
from derp.service.signals import Event, Receive, receive_signals
from derp.service.startup import prepare
from derp.service.status import Pages, standalone_pages
from derp.service.steering import RelaySteering, end_clients, is_mesh
from derp.session import recheck, serverinfo

_EVENTS: Final = 8
"""Signals that may wait to be acted on."""


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError where this machine can't."""
    with logging_started(), contextlib.ExitStack() as stack:
        resources = prepare(config, stack)
        tune_garbage_collector()
        trio.run(serve, config, resources, Standalone())


class Standalone:
    """The role of the only process."""

    processes = 1
    is_first = True

    def __init__(self, receive: Receive = receive_signals) -> None:
        """Get the events to act on from `receive`, which takes the signals."""
        self._receive = receive
        self._to_relay, self._events = trio.open_memory_channel[Event](_EVENTS)
        self._to_list, self._list_requests = trio.open_memory_channel[ListRequest](1)
        self._to_policy, self._policy_requests = trio.open_memory_channel[PolicyRequest](1)

    async def start(self, relay: RunningRelay) -> Pages:
        """Receive signals, keep the certificates up to date, and recheck the clients."""
        config, resources = relay.config, relay.resources
        # To the end of the process, so that a second signal does not cut the drain short.
        await relay.root.start(self._receive, self._to_relay)
        if resources.certificates is not None:
            announce_new = partial(announce_node, config, resources)
            keep = partial(resources.certificates.run, announce_new)
            relay.connections.start_soon(run_within, relay.orders, keep)
        if (checker := resources.own_checker) is not None:
            every = config.verification.recheck_every
            relay.services.start_soon(recheck.run, relay.state, checker, every, self._list_requests)
        source = policy_of(checker)
        self._keep_policy(relay, source, checker)
        if resources.monitoring:
            # To the end of the process, too: a drain is told.
            relay.root.start_soon(
                monitoring.serve,
                resources.monitoring,
                standalone_backend(relay),
                resources.metrics,
                relay.descriptors,
            )
        state, book = relay.state, KeyBook(source, checker)
        steering = RelaySteering(
            partial(end_clients, state),
            partial(is_mesh, state),
            self._to_policy,
            list_to_steer(checker, self._to_list),
        )
        if resources.control is not None:

            async def refused() -> control.RefusedKeys:
                return control.RefusedKeys(state.refusals.latest())

            to_list = self._to_list if has_list(checker) else None
            clients = partial(listing, state)
            asked = ControlBackend(clients, book, steering.steer, refused, to_list)
            relay.root.start_soon(control.serve, resources.control, asked, relay.descriptors)
        return standalone_pages(relay, steering.steer, book)

    def _keep_policy(
        self, relay: RunningRelay, source: PolicySource, checker: Checker | None
    ) -> None:
        state, services = relay.state, relay.services
        state.policy = source.policy

        async def apply(policy: Policy) -> int:
            return await serverinfo.apply_policy(state, services, policy)

        async def removed(keys: set[bytes]) -> None:
            if checker is not None:
                await recheck.recheck(state, checker, keys, strict=True)

        services.start_soon(keep_policy, source, checker, self._policy_requests, apply, removed)

    async def is_first_to(self, what: str) -> bool:  # noqa: ARG002 -- there is no other process
        """Return True."""
        return True

    async def until_stop(self, relay: RunningRelay) -> None:
        """Announce that all is served; reload at each SIGHUP, and return at SIGTERM or SIGINT."""
        announce(relay.config, relay.resources)
        async for event in self._events:
            if event is Event.STOP:
                return
            self._reload(relay)

    def _reload(self, relay: RunningRelay) -> None:
        """Read all files again."""
        if relay.resources.certificates is not None:
            relay.resources.certificates.wake()
        with contextlib.suppress(trio.WouldBlock):
            self._to_list.send_nowait(None)
        with contextlib.suppress(trio.WouldBlock):
            # A change that waits instead has the file read, too.
            self._to_policy.send_nowait(None)
        # On its own, so that a file that can't be read to its end delays no stop.
        apply = partial(serverinfo.apply, relay.state, relay.services)
        relay.services.start_soon(reload_rate_limit, relay.config, apply)
