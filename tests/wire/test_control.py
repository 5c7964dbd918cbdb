"""Requests and answers of the control socket: any bytes, in any pieces."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ControlRefused
from derp.wire.control import (
    LISTS,
    MAX_REQUEST,
    STEERING,
    Lines,
    Request,
    parse_added,
    parse_done,
    parse_list,
    to_line,
)

keys = st.text(min_size=1, max_size=100)
requests = st.one_of(
    st.builds(Request, st.sampled_from(LISTS)),
    st.builds(Request, st.sampled_from([each for each in STEERING if each != "limit"]), keys),
    st.builds(
        Request, st.sampled_from(["deny", "allow"]), keys, label=st.none() | st.text(max_size=30)
    ),
    st.builds(Request, st.just("list"), keys=st.dictionaries(keys, st.text(), min_size=1)),
    st.builds(Request, st.just("limit"), keys, st.none() | st.text(max_size=30)),
)


@given(requests)
def test_a_request_is_the_same_on_the_other_side(request: Request) -> None:
    line = request.to_line()
    assert line.count(b"\n") == 1
    assert Request.from_line(line[:-1]) == request


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ControlRefused):
        Request.from_line(data)


@given(
    st.dictionaries(
        st.sampled_from(["v", "do", "key", "rate", "label", "keys", "x"]),
        st.sampled_from(
            ["", "kick", "limit", "clients", "list", 1, 2, None, [], {}, {"x": "y"}, True, 1.5]
        ),
    )
)
def test_any_object_is_a_request_or_refused(fields: dict[str, object]) -> None:
    try:
        found = Request.from_line(json.dumps(fields).encode())
    except ControlRefused:
        return
    assert (found.do in STEERING) == bool(found.key)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 4000, "want a line such as"),
        (b"GET / HTTP/1.1\r", "want a line such as"),
        (b'["v", 1]', "want a line such as"),
        (b'{"do": "clients"}', "this relay speaks version 1"),
        (b'{"v": 2, "do": "clients"}', "use the derper command"),
        (b'{"v": 1}', "want one of clients, keys, refused, list, kick, deny, allow, limit"),
        (b'{"v": 1, "do": "kick"}', "kick: want a key"),
        (b'{"v": 1, "do": "kick", "key": 7}', "kick: want a key"),
        (b'{"v": 1, "do": "clients", "key": "x"}', "clients: want no key"),
        (b'{"v": 1, "do": "limit", "key": "x", "rate": 7}', "limit: want a rate as text"),
        (b'{"v": 1, "do": "deny", "key": "x", "rate": "1 MB/s"}', "deny: want no rate"),
        (b'{"v": 1, "do": "deny", "key": "x", "label": 7}', "deny: want a label as text"),
        (b'{"v": 1, "do": "kick", "key": "x", "label": "y"}', "kick: want no label"),
        (b'{"v": 1, "do": "list"}', "list: want keys with labels"),
        (b'{"v": 1, "do": "keys", "keys": {"x": ""}}', "keys: want no keys"),
        (b'{"v": 1, "do": "list", "keys": {"x": null}}', "list: want labels as text"),
    ],
)
def test_what_is_no_request_is_told_what_would_be_one(line: bytes, message: str) -> None:
    with pytest.raises(ControlRefused, match=message):
        Request.from_line(line)


def test_answers() -> None:
    assert parse_done(to_line({"done": "all", "ended": 2})) == "all"
    assert parse_list(to_line({"clients": [{"key": "x"}], "more": True})) == (
        [{"key": "x"}],
        True,
        [],
    )
    assert parse_list(to_line({"clients": [], "more": False, "silent": [0, 2]})) == (
        [],
        False,
        [0, 2],
    )
    for read in (parse_done, parse_list):
        with pytest.raises(ControlRefused, match="not so"):
            read(to_line({"error": "not so"}))
        for other in (b"", b"[]", b"<html>", to_line({}), b'{"done": "", "clients": []}'):
            with pytest.raises(ControlRefused, match="is no derper, or one of another version"):
                read(other)
    for fields in ({"clients": [1]}, {"clients": [], "silent": 2}, {"clients": [], "silent": [""]}):
        with pytest.raises(ControlRefused):
            parse_list(to_line(fields))
    found = parse_list(to_line({"keys": [{"key": "x"}], "more": False}), "keys")
    assert found == ([{"key": "x"}], False, [])
    assert parse_added(to_line({"added": ["x"]})) == ["x"]
    for wrong in ({"added": 7}, {"added": [7]}, {"done": "x"}):
        with pytest.raises(ControlRefused):
            parse_added(to_line(wrong))


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=8),
    st.lists(st.integers(1, 20)),
)
def test_lines_come_in_any_pieces(wanted: Sequence[bytes], sizes: Sequence[int]) -> None:
    data = b"".join(line + b"\n" for line in wanted)
    lines, found, rest = Lines(40), [], iter(sizes)
    while data:
        size = next(rest, len(data))
        lines.feed(data[:size])
        data = data[size:]
        while (line := lines.next()) is not None:
            found.append(line)
    assert found == wanted


@given(st.integers(1, 50), st.integers(1, 100))
def test_a_line_has_a_longest_length(longest: int, size: int) -> None:
    lines = Lines(longest)
    lines.feed(b"x" * (size - 1))
    if size - 1 >= longest:
        with pytest.raises(ControlRefused, match=f"at most {longest} bytes"):
            lines.next()
        return
    assert lines.next() is None
    lines.feed(b"\n" * 3)
    assert lines.next() == b"x" * (size - 1)
    assert lines.next() == b""


def test_a_line_that_is_too_long_is_refused_also_with_its_end() -> None:
    lines = Lines(MAX_REQUEST)
    lines.feed(b"x" * MAX_REQUEST + b"\n")
    with pytest.raises(ControlRefused):
        lines.next()
