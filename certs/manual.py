"""-certmode=manual: the operator's files, or a self-signed pair for an IP address.

Matches NewManualCertManager of Go's cmd/derper. Functions that touch files block.
"""

from collections.abc import Sequence
from datetime import datetime

import attrs

from certs.errors import CertificateError, CertificateFileError
from certs.files import PairFiles, exists, read_pair
from certs.generated import is_outside_validity
from certs.hostname import IPAddress, parse_ip
from certs.pair import Pair
from certs.selfsigned import previous_files, restore_previous, write_self_signed


def load(files: PairFiles, names: Sequence[str], now: datetime, *, make: bool = True) -> Pair:
    """Return the pair for `names`.

    `now` is timezone-aware. With `make`, a self-signed pair for an IP address, the only name, is
    made if there is no file, and replaced by `replace_invalid`. Raises CertificateError.
    """
    address = parse_ip(names[0]) if make and len(names) == 1 else None
    if address is not None:
        present = [file for file in (files.certificate, files.key) if exists(file)]
        if not present:
            write_self_signed(files, address, now)
        elif len(present) == 1:
            missing = files.key if present == [files.certificate] else files.certificate
            raise CertificateFileError(
                f"{missing}: no such file, though {present[0].name} is there; "
                f"put it back, or remove {present[0]} to have a new pair made"
            )
    pair = read_pair(files, names, now)
    notice = None if address is None else replace_invalid(files, address, pair, now)
    if notice is None:
        return pair
    pair = read_pair(files, names, now)
    return attrs.evolve(pair, warnings=(*pair.warnings, notice))


def replace_invalid(files: PairFiles, address: IPAddress, pair: Pair, now: datetime) -> str | None:
    """Replace a self-signed pair outside its validity period; return a message for the operator.

    An expired pair is replaced by a new one. A pair that is not valid yet was made when the clock
    was wrong: if its predecessor is there and valid, it is restored, and with it the pin that
    clients know. Returns None if nothing was done. Raises CertificateError.
    """
    if not is_outside_validity(pair, address, now):
        return None
    if now > pair.not_after:
        write_self_signed(files, address, now)
        new = read_pair(files, [str(address)], now)
        return (
            f"{files.certificate}: the self-signed certificate expired on "
            f"{pair.not_after:%Y-%m-%d %H:%M} UTC and was replaced; clients refuse this relay "
            f"until its node in the DERP map has the new CertName {new.pin}"
        )
    try:
        before = read_pair(previous_files(files), [str(address)], now)
    except CertificateError:
        return None
    if is_outside_validity(before, address, now):
        return None
    restore_previous(files)
    return (
        f"{files.certificate}: the self-signed certificate, made when the clock was wrong, is not "
        f"valid before {pair.not_before:%Y-%m-%d %H:%M} UTC; the one before it, with CertName "
        f"{before.pin}, was put back"
    )
