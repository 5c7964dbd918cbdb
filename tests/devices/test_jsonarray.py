"""The array of an answer in pieces: what json reads of the whole, however it is split."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.devices.jsonarray import MAX_VALUE, AnswerFormError, ArrayReader

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
spaces = st.text(" \t\r\n", max_size=3)


def read(data: bytes, cuts: list[int], name: str = "devices") -> list[Any]:
    """What the reader yields of data that comes in pieces."""
    reader, found = ArrayReader(name), []
    places = sorted(min(cut, len(data)) for cut in cuts)
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        found += reader.feed(data[start:stop])
    return [*found, *reader.finish()]


@given(
    elements=st.lists(values, max_size=6),
    others=st.dictionaries(st.text().filter(lambda name: name != "devices"), values, max_size=3),
    position=st.integers(0, 3),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    around=st.tuples(spaces, spaces),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_the_elements_are_those_of_the_whole(
    elements: list[Any],
    others: dict[str, Any],
    position: int,
    ascii_only: bool,
    indent: int | None,
    around: tuple[str, str],
    cuts: list[int],
) -> None:
    pairs = [*others.items()]
    pairs.insert(min(position, len(pairs)), ("devices", elements))
    text = json.dumps(dict(pairs), ensure_ascii=ascii_only, indent=indent)
    data = f"{around[0]}{text}{around[1]}".encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(AnswerFormError):
            read(data, cuts)
        return
    assert read(data, cuts) == elements


@pytest.mark.parametrize("number", ["1.5e+16", "-0.25E-7", "10", "1e5"])
def test_a_number_that_is_cut_off_is_no_shorter_one(number: str) -> None:
    data = f'{{"devices": [{number}, true]}}'.encode()
    for cut in range(len(data)):
        assert read(data, [cut]) == [float(number), True]


def check(data: bytes, cuts: list[int]) -> None:
    """Whatever is read is what json reads."""
    try:
        found = read(data, cuts)
    except AnswerFormError:
        return
    whole = json.loads(data)
    assert isinstance(whole, dict)
    assert found == (whole.get("devices") or [])


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_at_all(data: bytes, cuts: list[int]) -> None:
    check(data, cuts)


@given(
    data=st.text('{}[],:"devics 0-1e.ntrufal\\\n', max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_what_is_nearly_json(data: str, cuts: list[int]) -> None:
    check(data.encode(), cuts)


@pytest.mark.parametrize("text", ["{}", '{"devices":null}', '{"devices":[]}', '{"others":[1]}'])
def test_no_elements(text: str) -> None:
    assert read(text.encode(), []) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "it is cut off"),
        (b'{"devices":[{}', "it is cut off"),
        (b'{"devices":[{},', "it is cut off"),
        (b'{"devices":[{}]', "it is cut off"),
        (b"[]", "it is no JSON object"),
        (b"<html>", "it is no JSON object"),
        (b'{"devices":[]}x', "it is no JSON object"),
        (b'{"devices":[{}}', "it is no JSON object"),
        (b'{"devices":{}}', "devices is no array"),
        (b'{"devices":[' + b"[" * 200_000, "it is nested too deeply"),
        (b'{"devices":["\xff"]}', "it is not UTF-8"),
        (b'{"devices":[]}\xf3', "it is not UTF-8"),
        (b'{"devices":[' + b" " * 99 + b'"' + b"x" * (MAX_VALUE + 1), "a value is too long"),
    ],
)
def test_what_is_no_list(data: bytes, error: str) -> None:
    with pytest.raises(AnswerFormError, match=error):
        read(data, [])


def test_a_value_that_comes_byte_by_byte_takes_linear_time() -> None:
    """It is tried again when it has doubled."""
    reader = ArrayReader("devices")
    tries = 0

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            nonlocal tries
            tries += 1
            return super().raw_decode(s, idx)

    reader._json = Counting()
    data = b'{"devices":["' + b"x" * 10_000 + b'"]}'
    found = [element for byte in data for element in reader.feed(bytes([byte]))]
    assert [*found, *reader.finish()] == ["x" * 10_000]
    assert tries < 40


def test_what_waits_is_bounded() -> None:
    pieces = [b'{"devices":["', *[b"x" * 1000] * (3 * MAX_VALUE // 1000)]
    reader = ArrayReader("devices")
    with pytest.raises(AnswerFormError):
        [list(reader.feed(piece)) for piece in pieces]
    assert len(reader._text) <= 2 * MAX_VALUE + 1000
