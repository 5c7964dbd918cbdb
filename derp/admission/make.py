"""Construction of the checker, and the log lines at start about whom it admits."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import trio

from certs.ownership import warn_if_swappable
from derp import log
from derp.admission.allowlist import AllowList, load
from derp.admission.checker import VERDICTS, Checker
from derp.admission.model import Admission
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.config import Config
from derp.errors import StartError
from derp.metrics import Metrics
from derp.policy import file as policy_file

logger = log.get("admit")


def make_checker(config: Config, metrics: Metrics) -> Checker | None:
    """Return the checker; None if any client may use the relay. Blocks.

    Raises StartError if the policy, the list, a secret or the CA bundle can't be read.
    """
    if not config.verifies_clients and config.verification.policy is None:
        return None
    # An alert needs a counter that exists before its first event.
    metrics.admission_verdicts.update(dict.fromkeys(VERDICTS, 0))
    policy = allowlist = None
    if (path := config.verification.policy) is not None:
        policy = PolicySource(path, policy_file.load(path))
    if (path := config.verification.allowlist) is not None:
        allowlist = AllowList(path, load(path, StartError))
    tailscaleds = []
    if config.verification.tailscaled:
        from derp.admission.tailscaled import Tailscaled  # noqa: PLC0415 - loads an HTTP client

        sockets = config.verification.tailscaled_sockets
        for socket in sockets:
            # Whatever listens at the path is trusted. Of the socket itself, any mode is normal.
            warn_if_swappable(socket.parent)
        names = ["tailscaled"] if len(sockets) == 1 else [f"tailscaled:{path}" for path in sockets]
        tailscaleds = [Tailscaled(*each) for each in zip(sockets, names, strict=True)]
    if config.verification.url_ca_bundle is not None:
        warn_if_swappable(config.verification.url_ca_bundle)
    urls = []
    if config.verification.urls:
        from derp.admission.url import AdmissionURL  # noqa: PLC0415 - as above

        access = config.verification.url_authorization, config.verification.url_ca_bundle
        urls = [AdmissionURL(url, *access) for url in config.verification.urls]
    devices = []
    if config.devices.given:
        from derp.admission.makedevices import make_device_lists  # noqa: PLC0415 - as above

        devices = make_device_lists(config)
    sources = Sources(
        policy=policy,
        allowlist=allowlist,
        devices=devices,
        tailscaleds=tailscaleds,
        urls=urls,
        fail_open=config.verification.fail_open,
        require_all=config.verification.require_all,
        is_ordered=config.verification.isolate,
    )
    return Checker(metrics, sources, remember=config.verification.remember)


@contextlib.asynccontextmanager
async def opened(checker: Admission | None) -> AsyncIterator[None]:
    """Context in which URLs and APIs may be asked; closes the connections to them at its end."""
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(checker, Checker):
            fetchers = [source.fetcher for source in checker.sources.devices]
            for each in (*checker.sources.urls, *fetchers):
                if isinstance(each, contextlib.AbstractAsyncContextManager):
                    await stack.enter_async_context(each)
        yield


def ask_in(nursery: trio.Nursery, checker: Admission | None) -> None:
    """Have the tasks of questions run in `nursery`."""
    if isinstance(checker, Checker):
        checker.ask_in(nursery)


def announce(config: Config, checker: Checker | None) -> None:
    """Log who may use the relay, and whether clients are isolated."""
    if config.verification.isolate:
        logger.info("clients of different sources or groups can't reach each other")
    if checker is None:
        logger.warning("any client may use this relay; see -verify-clients and -verify-client-file")
        return
    policy = checker.sources.policy
    if policy is not None:
        policy.announce("policy in force")
        if not config.verifies_clients:
            if policy.policy.default.allowed is not False:
                logger.warning(
                    "any client may use this relay, unless -policy denies it; "
                    "deny = true under [defaults] there denies all that it does not allow"
                )
            return
    first = [] if policy is None else ["allowed in -policy"]
    listed = []
    if config.verification.allowlist is not None:
        listed.append("in -verify-client-file")
    listed += [f"in {source.name}" for source in checker.sources.devices]
    asked = []
    if config.verification.tailscaled:
        asked.append(_known_to([source.name for source in checker.sources.tailscaleds], config))
    if config.verification.urls:
        asked.append("allowed by -verify-client-url")
    if config.verification.require_all:
        order = [*first, " and ".join([*listed, *asked])]
    else:
        order = [*first, *listed, *([" and ".join(asked)] if asked else [])]
    keys = None if checker.sources.allowlist is None else len(checker.sources.allowlist.keys)
    logger.info("clients are checked", admitted=", or ".join(order), listed_keys=keys)
    if config.verification.urls and config.verification.fail_open:
        logger.warning(
            "while no -verify-client-url can be reached, every client is admitted; "
            "-verify-client-url-fail-open=false refuses them"
        )


def _known_to(names: Sequence[str], config: Config) -> str:
    if len(names) == 1:
        return f"known to {names[0]}"
    how_many = "each" if config.verification.require_all else "one"
    return f"known to {how_many} of {', '.join(names)}"
