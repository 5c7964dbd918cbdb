"""Log lines that one worker logs for all: the supervisor knows which were asked for before."""

from typing import Final

from derp.workers.rpc import Handler, Json

FIRST: Final = "notices.first"


class SupervisorNotices:
    """The supervisor's side; `handlers` are for the RPC connection of each worker."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {FIRST: self._is_first}
        self._known: set[str] = set()

    async def _is_first(self, what: Json) -> Json:
        """Return whether no worker has asked about `what` before."""
        is_first = what not in self._known
        self._known.add(what)
        return is_first
