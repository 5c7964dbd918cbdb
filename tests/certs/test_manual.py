from datetime import timedelta

import attrs
import pytest

from certs import manual
from certs.errors import CertificateError, CertificateFileError, WrongHostnameError
from certs.files import pair_files


def load(certdir, hostname, now):
    return manual.load(pair_files(certdir, hostname), [hostname], now)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_files_that_are_there_are_served(tmp_path, put, issued, now):
    put(issued)
    before = contents(tmp_path)
    pair = load(tmp_path, "relay.example", now)
    assert not pair.self_signed
    assert contents(tmp_path) == before


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"])
def test_an_address_without_files_gets_a_pair_that_is_kept(tmp_path, now, address):
    certdir = tmp_path / "certs"
    pair = load(certdir, address, now)
    assert pair.self_signed
    assert pair.warnings == ()
    assert load(certdir, address, now + timedelta(days=100)) == pair


def test_a_name_without_files_gets_none(tmp_path, now):
    certdir = tmp_path / "certs"
    with pytest.raises(CertificateFileError, match=r"relay\.example\.crt: no such file"):
        load(certdir, "relay.example", now)
    assert not certdir.exists()


@pytest.mark.parametrize(("gone", "left"), [(".crt", ".key"), (".key", ".crt")])
def test_half_a_pair_is_not_completed(tmp_path, now, gone, left):
    load(tmp_path, "192.0.2.7", now)
    (tmp_path / f"192.0.2.7{gone}").unlink()
    before = contents(tmp_path)
    with pytest.raises(CertificateFileError) as caught:
        load(tmp_path, "192.0.2.7", now)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/192.0.2.7{gone}: no such file, though 192.0.2.7{left}")
    assert "\n" not in message
    assert contents(tmp_path) == before


def test_links_to_nowhere_are_not_replaced(tmp_path, now):
    for suffix in ("crt", "key"):
        (tmp_path / f"192.0.2.7.{suffix}").symlink_to(tmp_path / f"unmounted.{suffix}")
    with pytest.raises(CertificateFileError, match="no such file"):
        load(tmp_path, "192.0.2.7", now)
    assert all(path.is_symlink() for path in tmp_path.iterdir())


@pytest.mark.parametrize("hostname", ["192.0.2.7", "relay.example"])
def test_a_file_in_place_of_the_directory(tmp_path, now, hostname):
    in_the_way = tmp_path / "certs"
    in_the_way.write_bytes(b"")
    with pytest.raises(CertificateFileError, match=r"\(Not a directory\)") as caught:
        load(in_the_way, hostname, now)
    assert str(caught.value).startswith(str(in_the_way))


def test_an_issued_certificate_for_an_address_is_served(tmp_path, put, issue, now):
    put(issue("192.0.2.7"), "192.0.2.7")
    assert not load(tmp_path, "192.0.2.7", now).self_signed


def test_a_certificate_for_another_address_is_refused(tmp_path, put, issue, now):
    put(issue("192.0.2.8"), "192.0.2.7")
    with pytest.raises(WrongHostnameError, match=r"but for '192\.0\.2\.8'"):
        load(tmp_path, "192.0.2.7", now)


def test_an_expired_self_signed_pair_is_replaced_and_kept_aside(tmp_path, now):
    first = load(tmp_path, "192.0.2.7", now - timedelta(days=400))
    before = contents(tmp_path)
    second = load(tmp_path, "192.0.2.7", now)
    assert second.pin != first.pin
    (notice,) = second.warnings
    assert "was replaced; clients refuse this relay until" in notice
    assert notice.endswith(f"CertName {second.pin}")
    after = contents(tmp_path)
    assert after["192.0.2.7.crt.old"] == before["192.0.2.7.crt"]
    assert after["192.0.2.7.key.old"] == before["192.0.2.7.key"]
    assert (tmp_path / "192.0.2.7.key.old").stat().st_mode & 0o777 == 0o600
    assert load(tmp_path, "192.0.2.7", now) == attrs.evolve(second, warnings=())


def test_a_self_signed_pair_is_kept_to_its_last_second(tmp_path, now):
    pair = load(tmp_path, "192.0.2.7", now)
    assert load(tmp_path, "192.0.2.7", pair.not_after).pin == pair.pin
    assert load(tmp_path, "192.0.2.7", pair.not_after + timedelta(seconds=1)).pin != pair.pin


def test_an_expired_pair_of_the_operators_is_left_alone(tmp_path, put, issue, now):
    put(issue("192.0.2.7"), "192.0.2.7")
    before = contents(tmp_path)
    end = load(tmp_path, "192.0.2.7", now).not_after
    (warning,) = load(tmp_path, "192.0.2.7", end + timedelta(days=1)).warnings
    assert warning.endswith("so clients refuse it; renew it")
    assert contents(tmp_path) == before


def test_nothing_is_made_in_places_of_the_operators(tmp_path, now):
    files = pair_files(tmp_path, "192.0.2.7")
    with pytest.raises(CertificateFileError, match="no such file"):
        manual.load(files, ["192.0.2.7"], now, make=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hostname", ["", ".", "..", "/", "a/../b", "*", "relay.example\0", "\n"])
def test_odd_hostnames_are_errors_of_this_package(tmp_path, now, hostname):
    with pytest.raises(CertificateError) as caught:
        load(tmp_path, hostname, now)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
