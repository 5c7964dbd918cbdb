import os
import subprocess
import sys
from pathlib import Path

import pytest

import certs
from certs.acme.authority import LETS_ENCRYPT, Authority, check
from certs.acme.network import Network
from certs.errors import CertificateFileError, Failure, IssueError

CRL = b"""\
-----BEGIN X509 CRL-----
MIGTMDsCAQEwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBeBcNMzAwMTAxMDAwMDAw
WhcNMzAwMjAxMDAwMDAwWjAKBggqhkjOPQQDAgNIADBFAiAeh0Rt8aujFW6euhnV
kZl2vmPlnCPMf9bjT6a9RgdT+QIhAIxV8zQFiFztWI7SNRdXa3OFekE6LW0033Y0
UczVizwr
-----END X509 CRL-----
"""


def refused(bundle, now):
    """Return what is said of a bundle, be it before the start or at an order."""
    authority = Authority("https://user:secret@ca.example/dir", bundle)
    with pytest.raises(CertificateFileError) as caught:
        check(authority)
    message = str(caught.value)
    with pytest.raises(IssueError) as later:
        Network(authority, None, now, 60.0)
    assert str(later.value) == message
    assert later.value.failure is Failure.TRANSIENT
    assert "\n" not in message
    assert "secret" not in message
    assert message.startswith(f"-acme-ca-bundle {bundle}: ")
    return message.removeprefix(f"-acme-ca-bundle {bundle}: ")


def test_the_public_roots():
    check(Authority(LETS_ENCRYPT))


def test_a_bundle(authority, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"our roots\n" + 2 * authority.cert_pem.bytes() + b"that is all\n")
    check(Authority(LETS_ENCRYPT, bundle))


def test_a_bundle_that_is_not_there(tmp_path, now):
    assert refused(tmp_path / "ca.pem", now) == (
        "can't be read (No such file or directory); "
        "name a file with the root certificate of the authority, in PEM"
    )


def test_a_directory(tmp_path, now):
    assert refused(tmp_path, now) == (
        "not a regular file; name a file with the root certificate of the authority, in PEM"
    )


def test_a_pipe_is_not_waited_for(tmp_path, now):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe", now).startswith("not a regular file; ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x30\x82\x01",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        CRL,
    ],
)
def test_a_bundle_without_certificates(tmp_path, now, content):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content)
    assert refused(bundle, now) == (
        "no certificate in PEM; put the root certificate of the authority there"
    )


def test_a_bundle_that_may_not_be_read(tmp_path, now, monkeypatch):
    def closed(self, *, follow_symlinks=True):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", closed)
    assert refused(tmp_path, now).startswith("can't be read (Permission denied); ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["account", "authority", "challenge", "ari", "schedule", "store"]
)
def test_modules_that_do_not_import_the_library(module):
    heavy = "{'acme', 'josepy', 'requests'}"
    code = f"import certs.acme.{module}, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(certs.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
