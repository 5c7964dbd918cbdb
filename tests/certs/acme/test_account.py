import errno
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certs.acme import account
from certs.acme.account import account_key
from certs.errors import Failure, IssueError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "acme_account+key"


def complaint(file):
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(IssueError) as caught:
        account_key(file.parent)
    assert caught.value.failure is Failure.TRANSIENT
    assert (file.read_bytes() if file.is_file() else None) == before
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message


def write(file, key, form=PrivateFormat.TraditionalOpenSSL, encryption=None):
    file.write_bytes(key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()))
    file.chmod(0o600)


def test_a_key_is_made_and_kept(file):
    made = account_key(file.parent)
    assert file.stat().st_mode & 0o777 == 0o600
    pem = file.read_bytes()
    assert pem.startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
    assert account_key(file.parent).private_numbers() == made.private_numbers()
    assert file.read_bytes() == pem
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_a_key_from_elsewhere_is_used(file, form):
    key = ec.generate_private_key(ec.SECP256R1())
    write(file, key, form)
    assert account_key(file.parent).private_numbers() == key.private_numbers()


@pytest.mark.parametrize("size", [0, 1, 30, 100, 200])
def test_a_truncated_key_is_not_replaced(file, size):
    account_key(file.parent)
    with file.open("r+b") as stream:
        stream.truncate(size)
    message = complaint(file)
    assert "restore it from a backup, or remove it to register anew" in message


def test_an_encrypted_key(file):
    key = ec.generate_private_key(ec.SECP256R1())
    write(file, key, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert "without a passphrase" in complaint(file)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_another_kind_of_key(file, key):
    write(file, key)
    assert "not an ECDSA key on P-256" in complaint(file)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_a_key_open_to_every_user(file, mode):
    account_key(file.parent)
    file.chmod(mode)
    assert f"(mode {mode:04o}); run: chmod 600 {file}" in complaint(file)


def test_a_directory_in_its_place(file):
    file.mkdir()
    assert "the account key can't be read (Is a directory)" in complaint(file)


def test_a_key_that_cant_be_read_is_not_replaced(file, monkeypatch):
    account_key(file.parent)

    def closed(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(account, "open_regular", closed)
        assert "the account key can't be read (Permission denied)" in complaint(file)
    assert file.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")


def test_a_pipe_is_not_waited_for(file):
    os.mkfifo(file)
    assert "the account key can't be read (Not a regular file)" in complaint(file)


def test_a_key_that_cant_be_written(file, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(account, "write_whole", full)
    assert "can't write the new account key (No space left on device)" in complaint(file)
