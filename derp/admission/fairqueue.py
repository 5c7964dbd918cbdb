"""A queue that is fair to networks. Sans-I/O.

Round robin over the networks, first in, first out within each: an item of a new network waits for
one item of each other network, however many those have.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by network. All methods but `clear` take constant time."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._networks)

    def add(self, network: str, item: T) -> None:
        """Append `item` to the items of its network."""
        self._networks.setdefault(network, OrderedDict())[item] = None

    def discard(self, network: str, item: T) -> None:
        """Remove `item`, if it is there."""
        if (items := self._networks.get(network)) is not None:
            items.pop(item, None)
            if not items:
                del self._networks[network]

    def pop(self) -> T:
        """Remove and return the next item. Raises KeyError if there is none."""
        network = next(iter(self._networks), "")
        item = next(iter(self._networks[network]))
        self._networks.move_to_end(network)
        self.discard(network, item)
        return item

    def clear(self) -> list[T]:
        """Remove and return all items."""
        waiting = [item for items in self._networks.values() for item in items]
        self._networks.clear()
        return waiting
