"""Which lost relays can be reached again: those that have logged in here."""

import trio


class Reachable:
    """Wakes tasks that wait to dial a relay again, as soon as it has logged in here."""

    def __init__(self) -> None:
        self.awaited: dict[trio.Event, bytes] = {}
        """The key of the relay for which each event stands."""

    def expect(self, key: bytes) -> trio.Event:
        """Return an event that is set when the relay with this key logs in, until `forget`."""
        event = trio.Event()
        self.awaited[event] = key
        return event

    def forget(self, event: trio.Event) -> None:
        """Leave an event as it is, whoever logs in."""
        self.awaited.pop(event, None)

    def logged_in(self, key: bytes) -> None:
        """Set the events of a relay that has logged in here."""
        for event, awaited in self.awaited.items():
            if awaited == key:
                event.set()
