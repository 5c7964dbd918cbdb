"""Certificates from an authority made for the run, and files to hold them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trustme

HOST = "relay.example"


@attrs.frozen
class Issued:
    """What an authority hands out, as an operator gets it."""

    chain_pem: bytes
    key_pem: bytes


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def issue(authority: trustme.CA) -> Callable[..., Issued]:
    """Issue a certificate for some names, below an intermediate authority."""
    intermediate = authority.create_child_ca()

    def issue(*names: str, common_name: str | None = None) -> Issued:
        issued = intermediate.issue_cert(*names, common_name=common_name)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return Issued(chain, issued.private_key_pem.bytes())

    return issue


@pytest.fixture(scope="session")
def issued(issue: Callable[..., Issued]) -> Issued:
    return issue(HOST)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write the two files of a pair into tmp_path, named for a host."""

    def put(issued: Issued, stem: str = HOST) -> tuple[Path, Path]:
        certificate_file, key_file = tmp_path / f"{stem}.crt", tmp_path / f"{stem}.key"
        certificate_file.write_bytes(issued.chain_pem)
        key_file.write_bytes(issued.key_pem)
        key_file.chmod(0o600)
        return certificate_file, key_file

    return put
