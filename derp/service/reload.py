"""SIGHUP's part that all kinds of processes share: the rate limit is read again."""

from collections.abc import Callable

import trio

from derp import log
from derp.config import Config
from derp.errors import ReloadError
from derp.files import ratelimit
from derp.files.ratelimit import RateConfig

logger = log.get("server")


async def reload_rate_limit(config: Config, apply: Callable[[RateConfig], object]) -> None:
    """Read the rate limit again, and apply it; one that can't be read leaves the old in force."""
    if config.limits.rate_config is None:
        logger.info("SIGHUP: looking at certificates and lists; there is no -rate-config")
        return
    try:
        limit = await trio.to_thread.run_sync(
            ratelimit.load, config.limits.rate_config, ReloadError, abandon_on_cancel=True
        )
    except ReloadError as error:
        logger.error("the old rate limit stays in force", reason=str(error))  # noqa: TRY400
        return
    apply(limit)
    logger.info("rate limit applied", bytes_per_second=limit.bytes_per_second, burst=limit.burst)
