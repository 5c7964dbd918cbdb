"""A warning about files that other users could replace: keys, lists, root certificates."""

from pathlib import Path

from certs.ownership import swapped_by
from derp import log

logger = log.get("files")

_logged: set[str] = set()


def warn_if_swappable(file: Path) -> None:
    """Log a warning if another user could replace `file`; the same one only once. Blocks.

    It is not an error: in containers, files of the host often belong to users that are unknown
    there.
    """
    warning = swapped_by(file)
    if warning is not None and warning not in _logged:
        _logged.add(warning)
        logger.warning(warning)
