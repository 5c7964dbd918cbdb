"""Fixtures of every suite that runs the relay beside real programs."""

from pathlib import Path

import pytest
import trustme

from tests.interop import golang
from tests.interop.relay import TestCA


@pytest.fixture(scope="session")
def binaries() -> dict[str, Path]:
    """Build the Go programs, unless they are built; return the path of each."""
    try:
        return golang.build()
    except golang.NoGoError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def test_ca(tmp_path_factory: pytest.TempPathFactory) -> TestCA:
    """Make a certificate authority that the programs of the tests trust."""
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    pem = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(pem)
    return TestCA(ca, pem)
