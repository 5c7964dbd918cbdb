import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.metrics import process

STAT = (
    "4242 ({name}) S 1 4242 4242 0 -1 4194560 2000 0 1 0 125 50 0 0 20 0 8 0 78919 "
    "1762172928 4564 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0"
)


@pytest.mark.parametrize("name", ["derper", "a b", ") S 1 (", "))((", ""])
def test_stat_numbers_whatever_the_program_is_called(name):
    assert process.parse_stat(STAT.format(name=name)) == (125, 50, 78919, 1762172928, 4564)


def test_boot_time():
    assert (
        process.parse_boot_time("cpu  1 2 3\nctxt 5\nbtime 1795418853\nprocesses 9\n") == 1795418853
    )
    assert process.parse_boot_time("cpu  1 2 3\n") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TcpExt: InOctets\nTcpExt: 1\nIpExt: A InOctets OutOctets\nIpExt: 0 7 8\n", (7, 8)),
        ("", None),
        ("IpExt: InOctets OutOctets\n", None),
        ("IpExt: InOctets\nIpExt: 7\n", None),
        ("IpExt: InOctets OutOctets\nIpExt: seven 8\n", None),
    ],
)
def test_octets(text, expected):
    assert process.parse_octets(text) == expected


@given(st.text())
def test_octets_of_any_text(text):
    process.parse_octets("IpExt: " + text)


def test_this_process():
    found = process.read()
    assert found is not None
    assert found.open_fds > 2
    assert found.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found.cpu_seconds > 0
    assert 1 << 20 < found.resident_bytes < found.virtual_bytes <= found.virtual_max_bytes
    assert found.booted < found.started < time.time() + 1


def test_open_descriptors_are_counted():
    before = process.count_fds()
    with Path(os.devnull).open("rb"), Path(os.devnull).open("rb"):
        assert process.count_fds() == before + 2
    assert process.count_fds() == before


def test_before_linux_6_2_they_are_listed(monkeypatch):
    with Path(os.devnull).open("rb"):
        expected = process.count_fds()
        monkeypatch.setattr(process.os, "stat", lambda _: SimpleNamespace(st_size=0))  # type: ignore[attr-defined]
        assert process.count_fds() == expected


def test_without_proc_there_are_no_figures(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert process.read() is None


def test_without_netstat_there_are_no_network_figures(monkeypatch, tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "stat").write_text(STAT.format(name="derper"))
    (tmp_path / "stat").write_text("btime 100\n")
    monkeypatch.setattr(process, "_PROC", tmp_path)
    found = process.read()
    assert found is not None
    assert found.received_bytes is None
    assert found.booted == 100
    assert found.cpu_seconds == pytest.approx(175 / os.sysconf("SC_CLK_TCK"))
    assert found.started == pytest.approx(100 + 78919 / os.sysconf("SC_CLK_TCK"))
    assert found.resident_bytes == 4564 * os.sysconf("SC_PAGE_SIZE")
