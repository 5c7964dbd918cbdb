"""A word to the operator on files that others could swap: keys, lists, roots."""

from pathlib import Path

from certs.ownership import swapped_by
from derp import log

logger = log.get("files")

_told: set[str] = set()


def warn_if_swappable(file: Path) -> None:
    """Log it if another user could put another file in this one's place; the same only once.

    It is not refused: in containers, files of the host often belong to users that are unknown
    there. Blocks.
    """
    warning = swapped_by(file)
    if warning is not None and warning not in _told:
        _told.add(warning)
        logger.warning(warning)
