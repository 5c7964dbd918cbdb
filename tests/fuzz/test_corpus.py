"""Every input of the corpus, in the unit suite, those that once broke a target among them."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, planted

CORPUS = Path(__file__).parent / "corpus"
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("file", INPUTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_an_input_of_the_corpus(file: Path):
    TARGETS[file.parent.name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_begins_with_what_it_knows(name: str):
    assert any(file.parent.name == name for file in INPUTS)
    TARGETS[name](b"")


def test_a_fault_is_told():
    with pytest.raises(AssertionError, match="found"):
        planted(b"\x02\x05")
