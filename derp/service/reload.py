"""The reload of the rate limit at a SIGHUP, in a relay of one process or in a supervisor."""

from collections.abc import Callable

import trio

from derp import log
from derp.config import Config
from derp.errors import ReloadError
from derp.files import ratelimit
from derp.files.ratelimit import RateConfig

logger = log.get("server")


async def reload_rate_limit(config: Config, apply: Callable[[RateConfig], object]) -> None:
    """Read the rate limit again and apply it; if that fails, the old one stays in force."""
    if config.limits.rate_config is None:
        logger.info("SIGHUP: reading certificates and lists; there is no -rate-config")
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
