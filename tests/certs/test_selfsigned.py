import stat
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import files
from certs.errors import CertificateFileError
from certs.files import PairFiles
from certs.parse import make_pair
from certs.selfsigned import make_self_signed, write_self_signed

ADDRESS = ip_address("192.0.2.7")


def files_in(directory):
    return PairFiles(directory / "a.crt", directory / "a.key")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7"])
def test_the_certificate_is_for_the_address_alone(text, now):
    certificate_pem, key_pem = make_self_signed(ip_address(text), now)
    pair = make_pair(certificate_pem, key_pem, chain_from="crt", key_from="key")
    assert pair.ip_addresses == (ip_address(text),)
    assert pair.dns_names == ()
    assert pair.self_signed


def test_what_clients_check(now):
    certificate_pem, key_pem = make_self_signed(ADDRESS, now)
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    assert certificate.version is x509.Version.v3
    assert certificate.not_valid_before_utc == now.replace(microsecond=0) - timedelta(days=1)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == timedelta(days=365)
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    extensions = {extension.value: extension.critical for extension in certificate.extensions}
    assert extensions == {
        x509.KeyUsage(
            digital_signature=True,
            key_encipherment=True,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ): True,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]): False,
        x509.BasicConstraints(ca=False, path_length=None): True,
        x509.SubjectAlternativeName([x509.IPAddress(ADDRESS)]): False,
    }
    assert key_pem.startswith(b"-----BEGIN EC PRIVATE KEY-----\n")


def test_files_and_directory_have_their_modes(tmp_path, now):
    directory = tmp_path / "new" / "certs"
    certificate_file, key_file = directory / "a.crt", directory / "a.key"
    write_self_signed(PairFiles(certificate_file, key_file), ADDRESS, now)
    assert mode_of(directory) == 0o700
    assert mode_of(certificate_file) == 0o644
    assert mode_of(key_file) == 0o600
    assert sorted(directory.iterdir()) == [certificate_file, key_file]
    make_pair(
        certificate_file.read_bytes(), key_file.read_bytes(), chain_from="crt", key_from="key"
    )


def test_the_mode_of_an_existing_directory_stays(tmp_path, now):
    tmp_path.chmod(0o750)
    write_self_signed(files_in(tmp_path), ADDRESS, now)
    assert mode_of(tmp_path) == 0o750


def test_the_key_goes_first_and_no_half_is_left_behind(tmp_path, now, monkeypatch):
    renamed = []

    def fail_at_the_second(self, target):
        renamed.append(Path(target).name)
        if len(renamed) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", fail_at_the_second)
    with pytest.raises(CertificateFileError, match="No space left on device"):
        write_self_signed(files_in(tmp_path), ADDRESS, now)
    assert renamed == ["a.key", "a.crt"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]


def test_content_is_on_disk_before_its_name(tmp_path, now, monkeypatch):
    steps = []
    fsync, rename = files.os.fsync, Path.replace  # type: ignore[attr-defined]
    monkeypatch.setattr(files.os, "fsync", lambda fd: (steps.append("sync"), fsync(fd)))  # type: ignore[attr-defined]
    monkeypatch.setattr(Path, "replace", lambda *a: (steps.append("rename"), rename(*a))[1])
    write_self_signed(files_in(tmp_path), ADDRESS, now)
    assert steps == ["sync", "rename", "sync"] * 2


def test_a_file_where_the_directory_should_be(tmp_path, now):
    in_the_way = tmp_path / "certs"
    in_the_way.write_bytes(b"")
    with pytest.raises(CertificateFileError) as caught:
        write_self_signed(files_in(in_the_way), ADDRESS, now)
    message = str(caught.value)
    assert message.startswith(f"{in_the_way}: can't write a self-signed certificate there")
    assert "\n" not in message
