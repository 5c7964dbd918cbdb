"""The back end of the HTTP front end: the relay's pages, and the commands of an operator."""

from functools import partial

import trio

from derp import log
from derp.errors import SteeringFailed
from derp.files.debugkey import debug_access
from derp.http.backend import Backend
from derp.http.steer import Operator, Outcome
from derp.service.live import Live
from derp.service.running import RunningRelay
from derp.service.status import Pages
from derp.service.steering import Steer
from derp.service.traffic import traffic_lines
from derp.wire.control import Command

logger = log.get("http")


def make_backend(relay: RunningRelay, pages: Pages, live: Live) -> Backend:
    """Return the back end of the HTTP front end."""
    config, certificates = relay.config, relay.resources.certificates
    token = relay.resources.admin_token
    challenges = None
    if certificates is not None and config.serve_acme:
        challenges = certificates.contexts.http_challenges
    return Backend(
        hostname=config.tls.hostname,
        public_key=relay.state.public_key,
        derp=config.general.derp,
        home=config.pages.home,
        bootstrap_dns=relay.bootstrap_dns,
        page=live.page,
        events=live.events,
        varz=pages.varz,
        expvars=pages.expvars,
        problems=pages.problems,
        traffic=partial(traffic_lines, pages.traffic),
        challenges=challenges,
        debug_access=debug_access(config, relay.resources.debug_key),
        operator=Operator(lambda: token.value, trio.current_time, _warn),
        steer=partial(steer, pages.steer),
    )


async def steer(do: Steer, command: Command, remote: str) -> Outcome:
    """Do what an operator at `remote`, who has shown the token, commands."""
    try:
        done = await do(command, f"admin token, {remote}")
    except SteeringFailed as failure:
        return Outcome(done=False, said=str(failure))
    return Outcome(done=True, said=done.sentence)


def _warn(address: str) -> None:
    # Not more often than an Operator takes wrong ones.
    logger.warning("a wrong operator's token was shown", remote=address)
