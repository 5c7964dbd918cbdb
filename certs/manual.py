"""-certmode=manual: the operator's own files, or a self-signed pair for an IP address.

Matches NewManualCertManager of Go's cmd/derper. The functions that touch files block: call them
in a thread.
"""

from datetime import datetime
from pathlib import Path

import attrs

from certs.errors import CertificateFileError
from certs.files import PairFiles, read_pair
from certs.hostname import IPAddress, parse_ip
from certs.pair import Pair
from certs.selfsigned import is_made_here, write_self_signed


def load(files: PairFiles, hostname: str, now: datetime, *, make: bool = True) -> Pair:
    """Return the pair to serve `hostname` with, first making one if there is none for an IP.

    `now` is timezone-aware. `make` allows to make one. What is there is not overwritten, unless
    it was made so and has expired: where only one of the two files exists, a CertificateFileError
    names the other. Raises CertificateError.
    """
    address = parse_ip(hostname) if make else None
    if address is not None:
        present = [file for file in (files.certificate, files.key) if _exists(file)]
        if not present:
            write_self_signed(files, address, now)
        elif len(present) == 1:
            missing = files.key if present == [files.certificate] else files.certificate
            raise CertificateFileError(
                f"{missing}: no such file, though {present[0].name} is there; "
                f"put the other half back, or remove {present[0]} to have a new pair made"
            )
    pair = read_pair(files, [hostname], now)
    if address is not None and must_be_replaced(pair, address, now):
        write_self_signed(files, address, now)
        old, pair = pair, read_pair(files, [hostname], now)
        pair = attrs.evolve(pair, warnings=(*pair.warnings, replaced_notice(files, old, pair)))
    return pair


def must_be_replaced(pair: Pair, address: IPAddress, now: datetime) -> bool:
    """Tell whether `pair` is self-signed, not by the operator, and refused by clients by now."""
    return now > pair.not_after and is_made_here(pair, address)


def replaced_notice(files: PairFiles, old: Pair, new: Pair) -> str:
    """Say loudly that the pin has changed."""
    return (
        f"{files.certificate}: the self-signed certificate expired on "
        f"{old.not_after:%Y-%m-%d %H:%M} UTC and was replaced; clients refuse this relay "
        f"until its node in the DERP map has the new CertName {new.pin}"
    )


def derp_map_node(hostname: str, pair: Pair | None) -> dict[str, str | int]:
    """Return the node to put in a DERP map for this relay, in the order that Go prints it.

    {"Name": "custom", "RegionID": 900, "HostName": hostname, "CertName": pin}

    CertName is left out where there is no pair yet, or its chain has intermediates: a client that
    is given a pin refuses a second certificate, and verifies such a chain without one.
    """
    node: dict[str, str | int] = {"Name": "custom", "RegionID": 900, "HostName": hostname}
    if pair is not None and len(pair.chain_der) == 1:
        node["CertName"] = pair.pin
    return node


def _exists(file: Path) -> bool:
    """Tell whether anything has that name, be it a link to nowhere."""
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CertificateFileError(
            f"{file}: can't be looked for ({error.strerror}); "
            f"point -certdir at a directory that the relay can enter"
        ) from error
    return True
