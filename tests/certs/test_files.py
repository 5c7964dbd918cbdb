import os
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certs.errors import CertificateFileError, UnusablePairError, WrongHostnameError
from certs.files import PairFiles, pair_files, read_pair


def read(certdir, hostname, now):
    return read_pair(pair_files(certdir, hostname), [hostname], now)


def complaint(kind, *arguments):
    with pytest.raises(kind) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_files_are_named_for_the_host(tmp_path):
    assert pair_files(tmp_path, "2001:db8::7") == PairFiles(
        tmp_path / "2001db87.crt",
        tmp_path / "2001db87.key",
    )


@pytest.mark.parametrize("hostname", ["relay.example", "RELAY.example", "relay.example."])
def test_a_pair_is_read(tmp_path, put, issued, now, hostname):
    put(issued, hostname)
    pair = read(tmp_path, hostname, now)
    assert pair.dns_names == ("relay.example",)
    assert pair.warnings == ()


@pytest.mark.parametrize("gone", [0, 1])
def test_an_absent_file_is_named(tmp_path, put, issued, now, gone):
    files = put(issued)
    files[gone].unlink()
    message = complaint(CertificateFileError, tmp_path, "relay.example", now)
    assert message.startswith(f"{files[gone]}: no such file; ")


@pytest.mark.parametrize("which", [0, 1])
def test_a_directory_in_place_of_a_file(tmp_path, put, issued, now, which):
    file = put(issued)[which]
    file.unlink()
    file.mkdir(mode=0o700)
    message = complaint(CertificateFileError, tmp_path, "relay.example", now)
    assert message.startswith(f"{file}: can't be read (Is a directory); ")


@pytest.mark.parametrize("mode", [0o602, 0o646, 0o666, 0o777])
def test_a_key_that_every_user_can_change_is_refused(tmp_path, put, issued, now, mode):
    _, key_file = put(issued)
    key_file.chmod(mode)
    message = complaint(CertificateFileError, tmp_path, "relay.example", now)
    assert f"(mode {mode:04o}); run: chmod 600 {key_file}" in message


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o444])
def test_a_key_that_every_user_can_read_is_served_with_a_warning(tmp_path, put, issued, now, mode):
    _, key_file = put(issued)
    key_file.chmod(mode)
    (warning,) = read(tmp_path, "relay.example", now).warnings
    assert warning == (
        f"{key_file}: every user can read this private key (mode {mode:04o}); "
        f"run: chmod 600 {key_file}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660, 0o440])
def test_a_key_open_to_a_group_is_fine(tmp_path, put, issued, now, mode):
    put(issued)[1].chmod(mode)
    assert read(tmp_path, "relay.example", now).warnings == ()


def test_the_mode_that_counts_is_not_that_of_a_link(tmp_path, put, issued, now):
    _, key_file = put(issued)
    target = key_file.rename(tmp_path / "privkey1.pem")
    key_file.symlink_to(target)
    read(tmp_path, "relay.example", now)
    target.chmod(0o646)
    complaint(CertificateFileError, tmp_path, "relay.example", now)


def test_contents_are_checked_under_the_names_of_the_files(tmp_path, put, issued, now):
    certificate_file, key_file = put(issued)
    certificate_file.write_bytes(b"hello")
    message = complaint(UnusablePairError, tmp_path, "relay.example", now)
    assert message.startswith(f"{certificate_file}: no PEM; ")
    put(issued)
    key_file.write_bytes(b"hello")
    message = complaint(UnusablePairError, tmp_path, "relay.example", now)
    assert message.startswith(f"{key_file}: no PEM; ")


def test_a_certificate_for_other_names_is_refused_with_these_names(tmp_path, put, issue, now):
    put(issue("other.example", "192.0.2.7"), "relay.example")
    message = complaint(WrongHostnameError, tmp_path, "relay.example", now)
    assert "not for -hostname 'relay.example' but for 'other.example', '192.0.2.7';" in message


def test_a_certificate_without_any_names(tmp_path, put, issued, now):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.example")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    certificate_file, key_file = put(issued)
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    message = complaint(WrongHostnameError, tmp_path, "relay.example", now)
    assert "but for no subject alternative name at all;" in message


def test_the_common_name_alone_does_not_count(tmp_path, put, issue, now):
    put(issue("203.0.113.1", common_name="relay.example"), "relay.example")
    complaint(WrongHostnameError, tmp_path, "relay.example", now)


def test_a_wildcard_is_good_for_the_host(tmp_path, put, issue, now):
    put(issue("*.example"), "relay.example")
    read(tmp_path, "relay.example", now)


def test_an_expired_pair_is_served_with_a_warning(tmp_path, put, issued, now):
    certificate_file, _ = put(issued)
    end = read(tmp_path, "relay.example", now).not_after
    assert read(tmp_path, "relay.example", end).warnings == ()
    (warning,) = read(tmp_path, "relay.example", end + timedelta(seconds=1)).warnings
    assert warning == (
        f"{certificate_file}: the certificate expired on {end:%Y-%m-%d %H:%M} UTC, "
        "so clients refuse it; renew it"
    )


def test_a_pair_from_the_future_is_served_with_a_warning(tmp_path, put, issued, now):
    certificate_file, _ = put(issued)
    start = read(tmp_path, "relay.example", now).not_before
    assert read(tmp_path, "relay.example", start).warnings == ()
    (warning,) = read(tmp_path, "relay.example", start - timedelta(seconds=1)).warnings
    assert warning == (
        f"{certificate_file}: the certificate is not valid before {start:%Y-%m-%d %H:%M} UTC; "
        "check this machine's clock"
    )


def test_a_pipe_is_not_waited_for(tmp_path, put, issued, now):
    certificate_file, _ = put(issued)
    certificate_file.unlink()
    os.mkfifo(certificate_file)
    message = complaint(CertificateFileError, tmp_path, "relay.example", now)
    assert message.startswith(f"{certificate_file}: can't be read (Not a regular file); ")
