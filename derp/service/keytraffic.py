"""The bytes of this process's clients by node key, as the kernel counts them."""

from typing import Final

import trio

from derp.metrics.keybytes import KeyBytes
from derp.session.client import Client
from derp.session.state import RelayState

_CLIENTS_PER_TURN: Final = 64


class KeyTraffic:
    """The bytes of all clients since the start, those that have left included.

    Packets cost nothing more: the kernel is asked for a client's bytes at a call of `totals`, and
    when the client leaves.
    """

    def __init__(self, state: RelayState, most: int) -> None:
        """Count from now on, with a series each for at most `most` keys."""
        self._state = state
        self._bytes = KeyBytes(most)
        state.on_leave = self._left

    async def totals(self) -> dict[bytes, tuple[int, int]]:
        """Return the bytes sent and received by key; see KeyBytes. A checkpoint."""
        members = self._state.hub.members
        for number, client in enumerate([*members]):
            if number % _CLIENTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if client in members:
                client.note_bytes()
                self._observe(client)
        return self._bytes.totals()

    def _left(self, client: Client) -> None:
        # The bytes were noted for the log already.
        self._observe(client)
        self._bytes.forget(client)

    def _observe(self, client: Client) -> None:
        self._bytes.observe(client, client.key, *client.wire_bytes, trio.current_time())
