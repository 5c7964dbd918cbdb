"""The request for a certificate from an authority."""

from collections.abc import Iterable
from pathlib import Path

import attrs

from certs.acme.authority import Authority
from certs.acme.store import plain_name


def _plain_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(plain_name, names))


@attrs.frozen
class OrderRequest:
    """A certificate to order."""

    certdir: Path
    names: tuple[str, ...] = attrs.field(converter=_plain_names)
    """DNS names (A-labels) and IP addresses; the file is named for the first."""
    authority: Authority
    profile: str = ""
    """One of the authority's profiles, such as "shortlived"; "" for its default."""
