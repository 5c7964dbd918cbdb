"""The records of an order: set, shown, removed; also where something fails."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from certs.acme.challenge import DNS01, HTTP01
from certs.acme.store import locked
from certs.dns01 import present
from certs.dns01.lookup import Lookup
from certs.dns01.options import DNSOptions
from certs.dns01.present import Records, remove_leftovers
from certs.dns01.record import Place, PlacedRecord, Record
from certs.dns01.recordfile import RecordFile
from certs.errors import CertificateFileError, Failure, IssueError
from tests.certs.dns01.conftest import NameServer, zone

OPTIONS = DNSOptions(provider="rfc2136", wait=20.0)
ONE, TWO = DNS01("a.example", "value-1"), DNS01("a.example", "value-2")
NAME = "_acme-challenge.a.example"


@attrs.define
class Company:
    """A Provider that sets records at the test's name server."""

    server: NameServer
    log: list[tuple[str, str]] = attrs.Factory(list)
    fails: dict[str, IssueError] = attrs.Factory(dict)
    """By what is done, or its value."""
    output: str = ""

    def set(self, placed: PlacedRecord, _budget: object) -> str:
        self._do("set", placed)
        self.server.records.setdefault((NAME, "TXT"), []).append(placed.record.value)
        return self.output

    def remove(self, placed: PlacedRecord, _budget: object) -> None:
        self._do("remove", placed)
        texts = self.server.records.get((NAME, "TXT"), [])
        left = [text for text in texts if text != placed.record.value]
        self.server.records.pop((NAME, "TXT"), None)
        if left:
            self.server.records[NAME, "TXT"] = left

    def _do(self, what: str, placed: PlacedRecord) -> None:
        self.log.append((what, placed.record.value))
        for key in (what, placed.record.value):
            if key in self.fails:
                raise self.fails[key]


@pytest.fixture
def company(serve: Callable[..., NameServer], monkeypatch: pytest.MonkeyPatch) -> Company:
    company = Company(serve("127.0.0.1", zone("example", "127.0.0.1")))
    monkeypatch.setattr(present, "make_provider", lambda *_: company)
    return company


@pytest.fixture
def records(tmp_path: Path, lookup: Lookup) -> Records:
    return Records(OPTIONS, tmp_path, lookup)


def shown(company: Company) -> list[str]:
    return company.server.records.get((NAME, "TXT"), [])


def test_all_are_shown_while_the_context_lasts(
    company: Company, records: Records, tmp_path: Path
) -> None:
    company.output = "id 7"
    assert records.none_left.is_set()
    with records.present([ONE, TWO]):
        assert shown(company) == ["value-1", "value-2"]
        assert not records.none_left.is_set()
        assert [entry.output for entry in RecordFile(tmp_path).read()] == ["id 7", "id 7"]
    assert shown(company) == []
    assert records.none_left.is_set()
    assert RecordFile(tmp_path).read() == []
    assert company.log == [
        ("set", "value-1"),
        ("set", "value-2"),
        ("remove", "value-1"),
        ("remove", "value-2"),
    ]


def test_other_challenges_need_no_provider(company: Company, records: Records) -> None:
    with records.present([HTTP01("token", "body")]), records.present([]):
        assert company.log == []


def test_they_are_removed_after_a_failed_validation(company: Company, records: Records) -> None:
    with pytest.raises(ZeroDivisionError), records.present([ONE]):
        raise ZeroDivisionError
    assert shown(company) == []
    assert records.none_left.is_set()


def test_the_second_fails(company: Company, records: Records, tmp_path: Path) -> None:
    """It may be set all the same, and is removed like the first."""
    company.fails["value-2"] = IssueError("down")
    with pytest.raises(IssueError, match="down"), records.present([ONE, TWO]):
        pytest.fail("not reached")
    assert company.log[2:] == [("remove", "value-1"), ("remove", "value-2")]
    assert [entry.record.value for entry in RecordFile(tmp_path).read()] == ["value-2"]
    company.fails.clear()
    with records.present([ONE]):
        assert ("remove", "value-2") in company.log[4:]
        assert [entry.record.value for entry in RecordFile(tmp_path).read()] == ["value-1"]


def test_what_was_refused_was_not_set(company: Company, records: Records, tmp_path: Path) -> None:
    company.fails["set"] = IssueError("no", Failure.REFUSED)
    with pytest.raises(IssueError, match="no"), records.present([ONE]):
        pytest.fail("not reached")
    assert company.log == [("set", "value-1")]
    assert RecordFile(tmp_path).read() == []


def test_one_that_can_t_be_removed_is_told_and_tried_again(
    company: Company, records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    company.fails["remove"] = IssueError("slow")
    with records.present([ONE]):
        pass
    (line,) = caplog.records
    assert line.getMessage() == "a DNS record can't be removed; the next order tries it again"
    assert line.fields == {  # type: ignore[attr-defined]
        "record": NAME,
        "value": "value-1",
        "reason": "slow",
    }
    company.fails.clear()
    remove_leftovers(OPTIONS, tmp_path)
    assert shown(company) == []
    assert RecordFile(tmp_path).read() == []


def test_nothing_is_removed_while_another_order_is_under_way(
    company: Company, records: Records, tmp_path: Path
) -> None:
    with locked(tmp_path), records.present([ONE]):
        remove_leftovers(OPTIONS, tmp_path)
        assert company.log == [("set", "value-1")]


def test_a_record_of_another_provider_is_told(
    company: Company, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = PlacedRecord("-acme-dns x", Record("a.example", "v"), Place(NAME, "example"))
    RecordFile(tmp_path).add(other)
    with caplog.at_level(logging.WARNING):
        remove_leftovers(OPTIONS, tmp_path)
    assert company.log == []
    (line,) = caplog.records
    assert line.fields["reason"] == "-acme-dns x has set it; remove it there"  # type: ignore[attr-defined]
    assert RecordFile(tmp_path).read() == []


def test_without_a_journal_nothing_is_asked(tmp_path: Path) -> None:
    remove_leftovers(OPTIONS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_order_that_is_given_up(company: Company, records: Records, tmp_path: Path) -> None:
    company.server.rcode = 5
    records.stop.set()
    with pytest.raises(IssueError, match="given up"), records.present([ONE]):
        pytest.fail("not reached")
    assert company.log == []
    assert records.none_left.is_set()


def test_credentials_that_are_gone(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise CertificateFileError("no file")

    monkeypatch.setattr(present, "make_provider", fail)
    with pytest.raises(IssueError, match="no file"), records.present([ONE]):
        pytest.fail("not reached")


def test_the_journal_has_no_more_than_is_needed(company: Company, records: Records) -> None:
    with records.present([ONE]):
        (entry,) = json.loads(RecordFile(records._certdir).path.read_text())
    assert entry == {
        "provider": "-acme-dns rfc2136",
        "domain": "a.example",
        "value": "value-1",
        "name": NAME,
        "zone": "example",
        "output": "",
    }
