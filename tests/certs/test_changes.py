"""The operator's files as operators change them: links, swapped directories, copies."""

import ipaddress
import os
from datetime import timedelta

import attrs
import pytest

from certs.changes import PairChanges
from certs.errors import CertificateError, OutOfDateError, UnusablePairError, WrongHostnameError
from certs.files import pair_files
from certs.manual import load
from certs.selfsigned import make_self_signed


class Source(PairChanges):
    """The files, and beside them the pair in force, as the certificate task has it."""

    def __init__(self, certdir, hostname, now):
        files = pair_files(certdir, hostname)
        super().__init__(files, [hostname])
        self.current = load(files, [hostname], now)

    def look(self, now, *, at_once=False):
        pair = super().check(now, self.current, at_once=at_once)
        self.current = pair or self.current
        return pair


@pytest.fixture
def source(tmp_path, put, issued, now):
    put(issued)
    return Source(tmp_path, "relay.example", now)


def looks(source, now, count=3):
    return [source.look(now) for _ in range(count)]


def test_unchanged_files_have_no_new_pair(source, now):
    before = source.current
    assert looks(source, now) == [None] * 3
    assert source.look(now, at_once=True) is None
    assert source.current is before


def test_a_change_is_read_once_it_has_lasted_from_check_to_check(source, put, issue, now):
    looks(source, now)
    renewed = issue("relay.example")
    put(renewed)
    assert source.look(now) is None
    pair = source.look(now)
    assert pair is not None
    assert pair is source.current
    assert looks(source, now) == [None] * 3


def test_at_once_does_not_wait(source, put, issue, now):
    looks(source, now)
    put(issue("relay.example"))
    assert source.look(now, at_once=True) is source.current
    assert looks(source, now) == [None] * 3


def test_a_copy_that_goes_on_is_left_alone(source, tmp_path, put, issue, now):
    looks(source, now)
    renewed = issue("relay.example")
    certificate_file, key_file = tmp_path / "relay.example.crt", tmp_path / "relay.example.key"
    for size in range(0, len(renewed.chain_pem), 500):
        certificate_file.write_bytes(renewed.chain_pem[:size])
        assert source.look(now) is None
    certificate_file.write_bytes(renewed.chain_pem)
    assert source.look(now) is None
    key_file.write_bytes(renewed.key_pem)
    assert source.look(now) is None
    assert source.look(now) is not None


def test_links_are_followed(tmp_path, put, issue, issued, now):
    """As certbot has it: live/ links into archive/, and a renewal turns the links."""
    live = tmp_path / "live"
    live.mkdir()
    put(issued, "1")
    put(issue("relay.example"), "2")
    for suffix in ("crt", "key"):
        (live / f"relay.example.{suffix}").symlink_to(tmp_path / f"1.{suffix}")
    source = Source(live, "relay.example", now)
    looks(source, now)
    before = source.current
    for suffix in ("crt", "key"):
        link = live / f"relay.example.{suffix}"
        link.unlink()
        link.symlink_to(tmp_path / f"2.{suffix}")
    assert source.look(now) is None
    assert source.look(now) is not None
    assert source.current.chain_der != before.chain_der


def test_a_swapped_directory_is_followed(tmp_path, issue, issued, now):
    """As Kubernetes has it: the files are links by way of ..data, which is turned."""
    for name, content in (("..1", issued), ("..2", issue("relay.example"))):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "tls.crt").write_bytes(content.chain_pem)
        (directory / "tls.key").write_bytes(content.key_pem)
        (directory / "tls.key").chmod(0o600)
    (tmp_path / "..data").symlink_to("..1")
    for suffix in ("crt", "key"):
        (tmp_path / f"relay.example.{suffix}").symlink_to(f"..data/tls.{suffix}")
    source = Source(tmp_path, "relay.example", now)
    looks(source, now)
    (tmp_path / "..new").symlink_to("..2")
    os.rename(tmp_path / "..new", tmp_path / "..data")  # noqa: PTH104 -- it is one system call
    assert source.look(now) is None
    assert source.look(now) is not None


def spoil_key(certificate_file, key_file, other):
    key_file.write_bytes(other.key_pem)


def spoil_chain(certificate_file, key_file, other):
    certificate_file.write_bytes(other.chain_pem[:300])


def remove(certificate_file, key_file, other):
    certificate_file.unlink()


def make_directory(certificate_file, key_file, other):
    certificate_file.unlink()
    certificate_file.mkdir()


@pytest.mark.parametrize("spoil", [spoil_key, spoil_chain, remove, make_directory])
def test_a_pair_that_cant_be_served_is_reported_once_and_the_old_one_stays(
    source, tmp_path, put, issue, now, spoil
):
    looks(source, now)
    before = source.current
    files = tmp_path / "relay.example.crt", tmp_path / "relay.example.key"
    spoil(*files, issue("relay.example"))
    assert source.look(now) is None
    with pytest.raises(CertificateError) as caught:
        source.look(now)
    assert "\n" not in str(caught.value)
    assert looks(source, now) == [None] * 3
    assert source.current is before
    with pytest.raises(CertificateError):
        source.look(now, at_once=True)
    if files[0].is_dir():
        files[0].rmdir()
    put(issue("relay.example"))
    assert source.look(now) is None
    assert source.look(now) is source.current is not before


def test_another_name_is_refused(source, put, issue, now):
    put(issue("other.example"))
    source.look(now)
    with pytest.raises(WrongHostnameError):
        source.look(now)


@pytest.fixture
def short_lived(tmp_path, now):
    """A self-signed pair, which lasts a year."""
    return Source(tmp_path, "192.0.2.7", now)


def test_a_new_pair_that_has_expired_is_refused(short_lived, tmp_path, now):
    looks(short_lived, now)
    before = short_lived.current
    chain, key = make_self_signed(ipaddress.ip_address("192.0.2.7"), now)
    (tmp_path / "192.0.2.7.crt").write_bytes(chain)
    (tmp_path / "192.0.2.7.key").write_bytes(key)
    later = now + timedelta(days=400)
    assert short_lived.look(later) is None
    with pytest.raises(OutOfDateError, match=r"192\.0\.2\.7\.crt: the new certificate expired on"):
        short_lived.look(later)
    assert short_lived.current is before


def test_the_pair_in_force_may_expire(short_lived, now):
    later = now + timedelta(days=400)
    assert looks(short_lived, later) == [None] * 3
    assert short_lived.look(later, at_once=True) is None


def test_a_change_during_the_read_is_read_again(source, put, issue, now, monkeypatch):
    looks(source, now)
    put(issue("other.example"))
    source.look(now)
    right = issue("relay.example")

    def changed(*_: object) -> None:
        put(right)
        raise UnusablePairError("half written")

    with monkeypatch.context() as patch:
        patch.setattr(source, "_read", changed)
        assert source.look(now) is None
    assert source.look(now) is None
    assert source.look(now) is source.current


def test_without_a_pair_in_force_absent_files_are_awaited_in_silence(tmp_path, put, issued, now):
    source = PairChanges(pair_files(tmp_path, "relay.example"), ["relay.example"])
    for _ in range(3):
        assert source.check(now, None) is None
    assert source.check(now, None, at_once=True) is None
    put(issued)
    assert source.check(now, None) is None
    assert source.check(now, None) is not None


def test_without_a_pair_in_force_an_expired_pair_is_served(tmp_path, put, issued, now):
    put(issued)
    source = PairChanges(pair_files(tmp_path, "relay.example"), ["relay.example"])
    pair = source.check(now + timedelta(days=9 * 365), None, at_once=True)
    assert pair is not None


def test_a_new_pair_that_is_not_valid_yet_is_refused_while_the_old_one_is_valid(
    tmp_path, put, issued, issue, now
):
    put(issued)
    source = Source(tmp_path, "relay.example", now)
    looks(source, now)
    put(issue("relay.example"))
    before = source.current.not_before
    early = before - timedelta(days=1)
    valid_then = attrs.evolve(source.current, not_before=early, not_after=now)
    files = PairChanges(source.files, source.names)
    with pytest.raises(OutOfDateError, match=r"is not valid before .* check this machine's clock"):
        files.check(early, valid_then, at_once=True)
    assert files.check(early, source.current, at_once=True) is not None


def test_a_pair_for_some_of_the_names_serves_until_there_is_one_for_all(
    tmp_path, put, issued, issue, now
):
    put(issued)
    names = ["relay.example", "more.example"]
    files = pair_files(tmp_path, "relay.example")
    with pytest.raises(WrongHostnameError, match=r"not for -hostname 'more\.example' but for"):
        PairChanges(files, names).check(now, None, at_once=True)
    source = PairChanges(files, names, some=True)
    some = source.check(now, None, at_once=True)
    assert some is not None
    assert not some.covers("more.example")
    assert source.check(now, some, at_once=True) is None
    put(issue(*names))
    everything = source.check(now, some, at_once=True)
    assert everything is not None
    put(issued)
    with pytest.raises(WrongHostnameError, match=r"more\.example"):
        source.check(now, everything, at_once=True)
    put(issue("other.example"))
    with pytest.raises(WrongHostnameError, match=r"relay\.example"):
        source.check(now, some, at_once=True)
