"""Recognition of the pairs that were generated for an IP address, and of those that are refused."""

from datetime import datetime, timedelta

from certs.hostname import IPAddress
from certs.pair import Pair


def is_generated(pair: Pair, address: IPAddress) -> bool:
    """Return whether `pair` looks like one that `selfsigned` or the Go derper made for `address`.

    Such a pair is self-signed, has the address as its only name and as common name, and is valid
    for a year. Any other pair is the operator's.
    """
    return (
        pair.self_signed
        and (pair.dns_names, pair.ip_addresses) == ((), (address,))
        and pair.subject == f"CN={address}"
        and timedelta(days=364) < pair.not_after - pair.not_before < timedelta(days=367)
    )


def is_outside_validity(pair: Pair, address: IPAddress, now: datetime) -> bool:
    """Return whether `pair` was generated and is outside its validity period."""
    current = pair.not_before <= now <= pair.not_after
    return not current and is_generated(pair, address)
