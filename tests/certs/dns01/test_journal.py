from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.dns01.journal import MAX_RECORDS, Journal
from certs.dns01.record import Place, PlacedRecord, Record
from certs.errors import IssueError

ONE = PlacedRecord("p", Record("a.example", "v"), Place("_acme-challenge.a.example", "example"))
TWO = attrs.evolve(ONE, record=Record("a.example", "w"))


def test_records_are_remembered_until_they_are_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() == []
    journal.add(ONE)
    journal.add(TWO)
    with_output = attrs.evolve(ONE, output="id 7\n\N{SNOWMAN}")
    journal.add(with_output)
    assert Journal(tmp_path).read() == [TWO, with_output]
    assert journal.file.stat().st_mode & 0o777 == 0o600
    journal.forget(ONE)
    assert journal.read() == [TWO]
    journal.forget(TWO)
    journal.forget(TWO)
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_are_forgotten_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    many = [attrs.evolve(ONE, record=Record("a.example", str(n))) for n in range(MAX_RECORDS + 2)]
    for each in many:
        journal.add(each)
    assert journal.read() == many[2:]


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"7", b"[7]", b'[{"provider": 7}]', b"\xff"])
def test_a_damaged_file_is_empty(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path)
    journal.file.write_bytes(content)
    assert journal.read() == []
    journal.add(ONE)
    assert journal.read() == [ONE]


@given(content=st.binary(max_size=50))
def test_anything_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    journal = Journal(tmp_path_factory.getbasetemp())
    journal.file.write_bytes(content)
    assert isinstance(journal.read(), list)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IssueError, match="can't note which DNS records are set") as caught:
        Journal(tmp_path / "none").add(ONE)
    message = str(caught.value)
    assert message == (
        f"{tmp_path}/none/.acme.records: can't note which DNS records are set "
        f"(No such file or directory); make {tmp_path}/none a directory that the relay can write to"
    )
