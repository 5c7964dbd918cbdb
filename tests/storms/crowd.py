"""Who comes: clients that belong, strangers, and two who are watched meanwhile."""

from dataclasses import dataclass

from nacl.public import PrivateKey

NETWORKS = 64 * 256


@dataclass(frozen=True)
class Comer:
    """A client with its key, and the address that it comes from."""

    private: PrivateKey
    address: str
    belongs: bool = True

    @property
    def public(self) -> bytes:
        return bytes(self.private.public_key)

    @property
    def line(self) -> str:
        """What `load storm` reads."""
        return f"{bytes(self.private).hex()} {'in' if self.belongs else 'out'} {self.address}"


def crowd(belong: int, strangers: int) -> list[Comer]:
    """Make clients with keys of their own; two and two come from one network (/24)."""
    found = []
    for number in range(belong + strangers):
        # Networks far apart come one after the other, strangers among those who belong.
        network = number // 2 * 61 % NETWORKS
        address = f"127.{64 + network // 256}.{network % 256}.{1 + number % 2}"
        is_stranger = strangers > 0 and number % (1 + belong // strangers) == 0
        found.append((address, is_stranger))
    left = strangers - sum(is_stranger for _, is_stranger in found)
    assert left <= 0 or belong == 0
    comers, allowed = [], strangers
    for address, is_stranger in found:
        counts = is_stranger and allowed > 0
        allowed -= counts
        comers.append(Comer(PrivateKey.generate(), address, not counts))
    return comers
