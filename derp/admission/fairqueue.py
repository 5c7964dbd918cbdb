"""Turns that wait, in an order in which no network can keep the others waiting. Pure.

The networks take turns; within one, first come is first served. A newcomer waits for one turn of
each network that has somebody waiting, however many those are.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Whoever waits, by network. All methods take constant time."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._networks)

    def add(self, network: str, item: T) -> None:
        """Let `item` wait, behind those of the same network."""
        self._networks.setdefault(network, OrderedDict())[item] = None

    def discard(self, network: str, item: T) -> None:
        """Let `item` wait no longer, if it does."""
        if (items := self._networks.get(network)) is not None:
            items.pop(item, None)
            if not items:
                del self._networks[network]

    def pop(self) -> T:
        """Return who is next, and let it wait no longer. Raises KeyError where nobody waits."""
        network = next(iter(self._networks), "")
        item = next(iter(self._networks[network]))
        self._networks.move_to_end(network)
        self.discard(network, item)
        return item

    def clear(self) -> list[T]:
        """Return all who wait, and let none of them wait any longer."""
        waiting = [item for items in self._networks.values() for item in items]
        self._networks.clear()
        return waiting
