"""-certmode=manual: the operator's own files, or a self-signed pair for an IP address.

Matches NewManualCertManager of Go's cmd/derper. Both functions that touch files block: call
`load` in a thread.
"""

from datetime import datetime
from pathlib import Path

from certs.errors import CertificateFileError
from certs.files import pair_files, read_pair
from certs.hostname import parse_ip
from certs.pair import Pair
from certs.selfsigned import write_self_signed


def load(certdir: Path, hostname: str, now: datetime) -> Pair:
    """Return the pair to serve `hostname` with, first making one if there is none for an IP.

    `now` is timezone-aware. What is there is never overwritten: where only one of the two files
    exists, a CertificateFileError names the other. Raises CertificateError.
    """
    address = parse_ip(hostname)
    if address is not None:
        certificate_file, key_file = pair_files(certdir, hostname)
        present = [file for file in (certificate_file, key_file) if _exists(file)]
        if not present:
            write_self_signed(certificate_file, key_file, address, now)
        elif len(present) == 1:
            missing = key_file if present == [certificate_file] else certificate_file
            raise CertificateFileError(
                f"{missing}: no such file, though {present[0].name} is there; "
                f"put the other half back, or remove {present[0]} to have a new pair made"
            )
    return read_pair(certdir, hostname, now)


def derp_map_node(hostname: str, pair: Pair) -> dict[str, str | int]:
    """Return the node to put in a DERP map for this relay, in the order that Go prints it.

    {"Name": "custom", "RegionID": 900, "HostName": hostname, "CertName": pin}

    CertName is left out where the chain has intermediates: a client that is given a pin refuses
    a second certificate, and verifies such a chain without one.
    """
    node: dict[str, str | int] = {"Name": "custom", "RegionID": 900, "HostName": hostname}
    if len(pair.chain_der) == 1:
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
