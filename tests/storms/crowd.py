"""Who comes: clients that belong, and strangers among them."""

from dataclasses import dataclass

from nacl.public import PrivateKey

SITES = 64
"""As many /16 of 127/8."""


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
    every = belong // strangers + 1 if strangers else 0
    return [
        Comer(
            PrivateKey.generate(),
            address(number),
            belongs=not every or number % every > 0 or number // every >= strangers,
        )
        for number in range(belong + strangers)
    ]


def address(number: int) -> str:
    network, host = divmod(number, 2)
    return f"127.{64 + network % SITES}.{network // SITES % 256}.{1 + host}"
