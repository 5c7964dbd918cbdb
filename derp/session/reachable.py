"""Wakes a task that waits to dial a lost relay, when that relay has logged in here."""

import trio


class Reachable:
    """The events that are set when relays log in here."""

    def __init__(self) -> None:
        self.awaited: dict[trio.Event, bytes] = {}
        """The relay's key, by event."""

    def expect(self, key: bytes) -> trio.Event:
        """Return an event that is set when the relay with this key logs in, until `forget`."""
        event = trio.Event()
        self.awaited[event] = key
        return event

    def forget(self, event: trio.Event) -> None:
        """Stop setting an event."""
        self.awaited.pop(event, None)

    def logged_in(self, key: bytes) -> None:
        """Set the events of a relay that has logged in here."""
        for event, awaited in self.awaited.items():
            if awaited == key:
                event.set()
