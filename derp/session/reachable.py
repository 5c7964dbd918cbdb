"""Events that wake a task which waits to dial a lost relay, once that relay has logged in here."""

import trio


class Reachable:
    """The events to set when relays log in here."""

    def __init__(self) -> None:
        self.awaited: dict[trio.Event, bytes] = {}
        """The key of the relay for which each event waits."""

    def expect(self, key: bytes) -> trio.Event:
        """Return an event that is set when the relay with this key logs in, until `forget`."""
        event = trio.Event()
        self.awaited[event] = key
        return event

    def forget(self, event: trio.Event) -> None:
        """Forget an event of `expect`."""
        self.awaited.pop(event, None)

    def logged_in(self, key: bytes) -> None:
        """Set the events that wait for a relay, which has logged in here."""
        for event, awaited in self.awaited.items():
            if awaited == key:
                event.set()
