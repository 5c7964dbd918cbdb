"""What an ACME server leaves in a -certdir, and one that is asked and issues nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from certs import apart
from certs.acme.store import certificate_file
from certs.errors import IssueError
from certs.tasks import renewal


def issuer(certdir: Path) -> Callable[[str], None]:
    """Return what writes a certificate for a name, as the ACME client would."""
    authority = trustme.CA()

    def put(name: str) -> None:
        issued = authority.issue_cert(name)
        file = certificate_file(certdir, name)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        file.write_bytes(issued.private_key_pem.bytes() + chain)
        file.chmod(0o600)

    return put


def refuse_orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Have every order refused; return the list that each order's names are added to."""
    asked: list[tuple[str, ...]] = []

    def obtain(request: Any, *_: object, **__: object) -> None:
        asked.append(request.names)
        raise IssueError("not today")

    monkeypatch.setattr(renewal, "obtain", obtain)
    monkeypatch.setattr(apart, "renewal_info", lambda *_: None)
    return asked
