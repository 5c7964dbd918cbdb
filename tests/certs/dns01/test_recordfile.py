from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.dns01.record import Place, PlacedRecord, Record
from certs.dns01.recordfile import MAX_RECORDS, RecordFile
from certs.errors import IssueError

ONE = PlacedRecord("p", Record("a.example", "v"), Place("_acme-challenge.a.example", "example"))
TWO = attrs.evolve(ONE, record=Record("a.example", "w"))


def test_records_are_remembered_until_they_are_forgotten(tmp_path: Path) -> None:
    record_file = RecordFile(tmp_path)
    assert record_file.read() == []
    record_file.add(ONE)
    record_file.add(TWO)
    with_output = attrs.evolve(ONE, output="id 7\n\N{SNOWMAN}")
    record_file.add(with_output)
    assert RecordFile(tmp_path).read() == [TWO, with_output]
    assert record_file.path.stat().st_mode & 0o777 == 0o600
    record_file.forget(ONE)
    assert record_file.read() == [TWO]
    record_file.forget(TWO)
    record_file.forget(TWO)
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_are_forgotten_first(tmp_path: Path) -> None:
    record_file = RecordFile(tmp_path)
    many = [attrs.evolve(ONE, record=Record("a.example", str(n))) for n in range(MAX_RECORDS + 2)]
    for each in many:
        record_file.add(each)
    assert record_file.read() == many[2:]


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"7", b"[7]", b'[{"provider": 7}]', b"\xff"])
def test_a_damaged_file_is_empty(tmp_path: Path, content: bytes) -> None:
    record_file = RecordFile(tmp_path)
    record_file.path.write_bytes(content)
    assert record_file.read() == []
    record_file.add(ONE)
    assert record_file.read() == [ONE]


@given(content=st.binary(max_size=50))
def test_anything_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    record_file = RecordFile(tmp_path_factory.getbasetemp())
    record_file.path.write_bytes(content)
    assert isinstance(record_file.read(), list)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IssueError, match="can't note which DNS records are set") as caught:
        RecordFile(tmp_path / "none").add(ONE)
    message = str(caught.value)
    assert message == (
        f"{tmp_path}/none/.acme.records: can't note which DNS records are set "
        f"(No such file or directory); make {tmp_path}/none a directory that the relay can write to"
    )
