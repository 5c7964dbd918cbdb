import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.acme import store
from certs.acme.store import (
    certificate_file,
    issued_by,
    locked,
    plain_name,
    probe,
    read_usable,
    write_certificate,
)
from certs.errors import Failure, IssueError
from certs.parse import make_pair

DIRECTORY = "https://ca.example/directory"
HOST = "relay.example"


def complaint(action, *arguments):
    with pytest.raises(IssueError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return caught.value.failure, message


def sec1(pem):
    """The key as "EC PRIVATE KEY"."""
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("name", "plain", "file"),
    [
        ("relay.example", "relay.example", "relay.example"),
        ("Relay.EXAMPLE.", "relay.example", "relay.example"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1", "2001.db8..1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("../etc/passwd", "../etc/passwd", "..etcpasswd"),
    ],
)
def test_names_of_files(name, plain, file):
    assert plain_name(name) == plain
    assert certificate_file(Path("/certs"), name) == Path("/certs", file)


@pytest.fixture
def stored(tmp_path, issued):
    """A certificate in its file, and the pair that was written."""
    pair = make_pair(issued.chain_pem, issued.key_pem, chain_from="chain", key_from="key")
    file = certificate_file(tmp_path, HOST)
    write_certificate(file, DIRECTORY, sec1(issued.key_pem), pair.chain_der)
    return file, pair


def test_a_written_certificate_is_read(tmp_path, stored, now):
    file, pair = stored
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_usable(tmp_path, (HOST,), now) == pair
    assert issued_by(file) == DIRECTORY


def test_an_odd_url_is_kept_as_it_is(tmp_path, stored, now):
    file, pair = stored
    odd = "https://\u00fc.example/-----BEGIN?\u202e\\"
    write_certificate(file, odd, sec1(pair.key_pem), pair.chain_der)
    assert issued_by(file) == odd
    assert read_usable(tmp_path, (HOST,), now) == pair


def test_the_order_of_blocks_is_that_of_autocert(stored):
    file, pair = stored
    lines = file.read_text().splitlines()
    assert lines[0] == f"ACME directory: {DIRECTORY}"
    begins = [line for line in lines if line.startswith("-----BEGIN ")]
    expected = ["EC PRIVATE KEY"] + ["CERTIFICATE"] * len(pair.chain_der)
    assert begins == [f"-----BEGIN {kind}-----" for kind in expected]
    assert lines[1] == begins[0]
    assert lines[-1] == "-----END CERTIFICATE-----"
    assert len(pair.chain_der) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"-----BEGIN EC PRIVATE KEY-----\n",
        b"\xff" * 9000,
        b"ACME directory: https://" + b"x" * 9000 + b"\n",
    ],
)
def test_a_file_from_elsewhere_says_no_issuer(tmp_path, line):
    file = tmp_path / HOST
    file.write_bytes(line)
    assert issued_by(file) is None
    file.unlink()
    assert issued_by(file) is None


def test_a_pipe_says_no_issuer_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / HOST)
    assert issued_by(tmp_path / HOST) is None


def test_unusable_certificates(tmp_path, stored, now):
    file, pair = stored
    assert read_usable(tmp_path, (HOST, "192.0.2.1"), now) is None
    assert read_usable(tmp_path, ("other.example",), now) is None
    assert read_usable(tmp_path, (HOST,), pair.not_after) == pair
    assert read_usable(tmp_path, (HOST,), pair.not_after + timedelta(seconds=1)) is None
    file.write_bytes(file.read_bytes()[:600])
    assert read_usable(tmp_path, (HOST,), now) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_certificate_that_cant_be_stored_is_spent(stored, monkeypatch, number):
    file, pair = stored
    before = file.read_bytes()
    key = sec1(pair.key_pem)
    monkeypatch.setattr(os, "fsync", failing(number))
    failure, message = complaint(write_certificate, file, DIRECTORY, key, pair.chain_der)
    assert failure is Failure.SPENT
    assert message.startswith(f"{file}: can't store the certificate just issued (")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_name_as_long_as_the_file_system_takes(stored):
    file, pair = stored
    long = file.with_name("a" * 255)
    probe(long)
    write_certificate(long, DIRECTORY, sec1(pair.key_pem), pair.chain_der)
    assert long.read_bytes() == file.read_bytes()
    probe(long)


def test_a_name_that_is_too_long(tmp_path):
    file = tmp_path / ("a" * 256)
    failure, message = complaint(probe, file)
    assert failure is Failure.TRANSIENT
    assert message == (
        f"{file}: can't be examined (File name too long), so no certificate is ordered for it; "
        f"point -certdir at a file system that takes such names"
    )


def test_a_link_stays_and_its_target_is_replaced(stored, now):
    file, pair = stored
    volume = file.parent / "volume"
    volume.mkdir()
    kept = file.rename(volume / "kept")
    file.symlink_to("volume/kept")
    for content in (b"", kept.read_bytes()):
        kept.write_bytes(content)
        probe(file)
        write_certificate(file, DIRECTORY, sec1(pair.key_pem), pair.chain_der)
        assert file.is_symlink()
        assert list(volume.iterdir()) == [kept]
        assert read_usable(file.parent, (HOST,), now) == pair
        assert issued_by(file) == DIRECTORY
        kept.unlink()
        probe(file)
        write_certificate(file, DIRECTORY, sec1(pair.key_pem), pair.chain_der)


def test_a_link_into_a_missing_directory(tmp_path):
    file = tmp_path / HOST
    file.symlink_to("unmounted/kept")
    _, message = complaint(probe, file)
    assert message.startswith(f"{tmp_path}/unmounted: can't store certificates there (No such ")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("link", [HOST, "directory", "pipe"])
def test_a_link_to_a_target_that_can_not_be_replaced(tmp_path, link):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / HOST
    file.symlink_to(link)
    _, message = complaint(probe, file)
    assert message.startswith(f"{tmp_path / link}: not a regular file, so no certificate is ")


def test_a_directory_in_place_of_the_file(tmp_path):
    file = tmp_path / HOST
    file.mkdir()
    failure, message = complaint(probe, file)
    assert failure is Failure.TRANSIENT
    assert message == (
        f"{file}: not a regular file, so no certificate is ordered for it; "
        f"move it away, or point -certdir elsewhere"
    )


MOUNT = """
import pathlib, sys
from certs.acme.store import probe
from certs.errors import IssueError
file = pathlib.Path(sys.argv[1])
try:
    probe(file)
except IssueError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("other_file_system", [False, True])
def test_a_mount_point_in_place_of_the_file(tmp_path, other_file_system):
    """As docker run -v HOST_FILE:FILE has it: the kernel lets nobody replace such a file."""
    file, outside = tmp_path / "certs" / HOST, tmp_path / "outside"
    file.parent.mkdir()
    outside.mkdir()
    file.touch()
    (file.parent / "other.example").touch()
    space = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-ec"]
    script = 'cd "$0"; touch outside/kept; mount --bind outside/kept certs/relay.example; exec "$@"'
    if other_file_system:
        script = f'cd "$0"; mount -t tmpfs tmpfs outside; {script}'
    command = [*space, script, str(tmp_path)]

    def run(*inside):
        return subprocess.run(
            [*command, *inside],
            cwd=Path(store.__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    if run("true").returncode:
        pytest.skip("nothing can be mounted here")
    said = run(sys.executable, "-c", MOUNT, str(file))
    assert said.stderr == ""
    assert said.stdout == (
        f"{file}: a mount point, which can't be replaced, so no certificate is ordered for it; "
        f"mount {file.parent} instead of the file\n"
    )
    beside = run(sys.executable, "-c", MOUNT, str(file.with_name("other.example")))
    assert (beside.stdout, beside.stderr) == ("", "")


@pytest.mark.slow
def test_a_kernel_without_mount_ids(stored, monkeypatch):
    monkeypatch.setattr(Path, "read_text", failing(errno.ENOENT))
    probe(stored[0])


def test_the_directory_is_made_private(tmp_path):
    certdir = tmp_path / "a" / "b"
    probe(certdir / HOST)
    assert certdir.stat().st_mode & 0o777 == 0o700
    assert list(certdir.iterdir()) == []
    certdir.chmod(0o755)
    probe(certdir / HOST)
    assert certdir.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_in_place_of_the_directory(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")
    failure, message = complaint(probe, tmp_path / path / HOST)
    assert failure is Failure.TRANSIENT
    assert message.startswith(f"{tmp_path / path}: can't store certificates there (")
    assert "point -certdir at a directory that the relay can write to" in message


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "to the user that the relay runs as (user ID "),
        (errno.EIO, "point -certdir at a directory that the relay can write to"),
    ],
)
@pytest.mark.parametrize("call", [(os, "fsync"), (tempfile, "NamedTemporaryFile"), (Path, "mkdir")])
def test_a_directory_that_cant_be_written(tmp_path, monkeypatch, number, cure, call):
    monkeypatch.setattr(*call, failing(number))
    _, message = complaint(probe, tmp_path / HOST)
    assert f"({os.strerror(number)}), so none is ordered; " in message
    assert cure in message
    assert list(tmp_path.iterdir()) == []


def test_one_order_at_a_time(tmp_path):
    with locked(tmp_path):
        assert (tmp_path / ".acme.lock").stat().st_mode & 0o777 == 0o600
        failure, message = complaint(locked(tmp_path).__enter__)
        assert failure is Failure.BUSY
        assert message == f"another order is under way in {tmp_path}"
    with locked(tmp_path):
        pass


HOLD = """
import sys, pathlib, certs.acme.store
with certs.acme.store.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_one_process_at_a_time(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    root = Path(store.__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            failure, _ = complaint(locked(tmp_path).__enter__)
            assert failure is Failure.BUSY
        finally:
            other.kill()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with locked(tmp_path):
        pass


def test_a_lock_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    failure, message = complaint(locked(tmp_path).__enter__)
    assert failure is Failure.TRANSIENT
    assert "can't be locked (Input/output error)" in message


def test_a_lock_that_cant_be_opened(tmp_path):
    (tmp_path / ".acme.lock").mkdir()
    _, message = complaint(locked(tmp_path).__enter__)
    assert "can't be opened (Is a directory)" in message
