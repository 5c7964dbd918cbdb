"""The command `derper accounts`."""

import json
from pathlib import Path

import pytest

from derp.accounts.counts import Counts
from derp.accounts.file import AccountsFile
from derp.accounts.unwritten import Unwritten
from derp.cli import procfs
from derp.cli.main import main

KEY = bytes(range(32))
NOON = 1_796_126_400.0  # 2026-12-01


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "accounts"
    file = AccountsFile(path)
    pending = Unwritten(NOON)
    pending.add(KEY, Counts(1, 2, 3, 4, 5000))
    pending.add(KEY, Counts(10), "2026-11-30")
    file.write(pending, "2026-12-01", ())
    file.close()
    return path


def printed(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["accounts", *flags]) == 0
    found = capsys.readouterr()
    assert not found.err
    return found.out


def refused(capsys: pytest.CaptureFixture[str], code: int, *flags: str) -> str:
    assert main(["accounts", *flags]) == code
    found = capsys.readouterr()
    assert not found.out
    (line,) = found.err.splitlines()
    return line


def test_by_key(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    table = printed(capsys, "-accounts", str(path))
    assert f"nodekey:{KEY.hex()}" in table
    assert table.splitlines()[-1].split()[:3] == ["all", "11", "B"]


def test_by_day_and_month_since(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    given = ("--accounts", str(path), "--json")
    days = [json.loads(line) for line in printed(capsys, *given, "--by", "day").splitlines()]
    assert [(day["day"], day["sent"]) for day in days] == [("2026-11-30", 10), ("2026-12-01", 1)]
    assert days[1] == {
        "day": "2026-12-01",
        "sent": 1,
        "received": 2,
        "packets_sent": 3,
        "packets_received": 4,
        "seconds": 5,
    }
    (since,) = printed(capsys, *given, "--by=month", "--since=2026-12-01").splitlines()
    assert json.loads(since)["month"] == "2026-12"


def test_csv(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    lines = printed(capsys, f"-accounts={path}", "-csv", "-by=month").splitlines()
    assert lines == [
        "month,sent,received,packets_sent,packets_received,seconds",
        "2026-11,10,0,0,0,0",
        "2026-12,1,2,3,4,5",
    ]


def test_the_variable_will_do(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERP_ACCOUNTS_FILE", str(path))
    assert printed(capsys, "-csv")


def test_the_file_of_a_containers_relay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(procfs, "relay_of_container", lambda: 7)
    monkeypatch.setattr(procfs, "arguments_of", lambda pid: ["-accounts", str(path)])
    monkeypatch.setattr(procfs, "variables_of", lambda pid: {})
    assert printed(capsys, "-csv")
    # What the operator says goes before.
    assert "no such file" in refused(capsys, 1, "-accounts", str(tmp_path / "none"))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "-since DATE" in printed(capsys, "-h")


def test_what_is_refused(capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path) -> None:
    given = ("-accounts", str(path))
    assert "want -accounts" in refused(capsys, 2)
    assert "want day, month or key" in refused(capsys, 2, *given, "-by", "year")
    for date in ("yesterday", "2026-13-01", "2026-02-30", "2026", "20261201", "2026-1-1"):
        assert "want a day such as" in refused(capsys, 2, *given, "-since", date)
    assert "not both" in refused(capsys, 2, *given, "-csv", "-json")
    assert "no such file; start" in refused(capsys, 1, "-accounts", str(tmp_path / "none"))
    (tmp_path / "other").write_text("text")
    assert "is no accounts file" in refused(capsys, 1, "-accounts", str(tmp_path / "other"))


def test_a_corrupt_file(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert "malformed" in refused(capsys, 1, "-accounts", str(path))


def test_a_newer_file(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:64] = (99).to_bytes(4, "big")
    path.write_bytes(content)
    assert "of a later derper (version 99)" in refused(capsys, 1, "-accounts", str(path))
