"""Events that wake the tasks which wait to dial a lost relay, once that relay logs in here."""

import trio


class Reachable:
    """The events to set when relays log in here."""

    def __init__(self) -> None:
        self.awaited: dict[trio.Event, bytes] = {}
        """By event, the key of the relay whose login sets it."""

    def expect(self, key: bytes) -> trio.Event:
        """Return an event that is set when the relay with this key logs in, until `forget`."""
        event = trio.Event()
        self.awaited[event] = key
        return event

    def forget(self, event: trio.Event) -> None:
        """Forget an event of `expect`."""
        self.awaited.pop(event, None)

    def logged_in(self, key: bytes) -> None:
        """Set the events of a relay, which has logged in here."""
        for event, awaited in self.awaited.items():
            if awaited == key:
                event.set()
