"""Bodies that are skipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.hidden.bodies import MAX_LINE, Body
from derp.net.budgets import BYTES_FOR_READ, FREE_READS

NEXT = b"GET /"


def skip(body: Body, *pieces: bytes) -> bytes:
    rest = b""
    for piece in pieces:
        rest = body.feed(rest + piece)
    return rest


def test_a_length() -> None:
    body = Body(5, chunked=False)
    assert (skip(body, b"he"), body.ended) == (b"", False)
    assert (skip(body, b"llo" + NEXT), body.ended) == (NEXT, True)
    assert skip(body, b"more") == b"more"


def test_no_body() -> None:
    body = Body(0, chunked=False)
    assert body.ended
    assert skip(body, NEXT) == NEXT


@pytest.mark.parametrize(
    "chunks",
    [
        b"0\r\n\r\n",
        b"0\n\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"A;x=y\r\n0123456789\r\n0;z\r\nX: y\r\n\r\n",
        b"a \n0123456789\n00\nTrailer\n\r\n",
        b"1\t\r\n\r\r\n0\r\n\r\n",
    ],
)
def test_chunks(chunks: bytes) -> None:
    for pieces in ((chunks + NEXT,), tuple(chunks[i : i + 1] for i in range(len(chunks))), ()):
        body = Body(0, chunked=True)
        rest = skip(body, *(pieces or (chunks, NEXT)))
        assert (body.ended, body.is_wrong) == (True, False)
        assert rest in {NEXT, b""}


@pytest.mark.parametrize(
    "chunks",
    [
        b"x",
        b"\rx",
        b"1z",
        b"0x",
        b"1\r\nab",
        b"1\r\na\rb",
        b"1\rx",
        b"0\r\nA: b\rc",
        b"f" * 16,
        b"1;" + b"a" * (MAX_LINE - 1),
        b"0\r\n" + b"a" * (MAX_LINE + 1),
    ],
)
def test_what_is_wrong(chunks: bytes) -> None:
    body = Body(0, chunked=True)
    skip(body, chunks)
    assert (body.ended, body.is_wrong) == (False, True)
    body = Body(0, chunked=True)
    skip(body, chunks[:-1])
    assert not body.is_wrong


def test_there_may_be_many_chunks_but_not_many_of_a_byte() -> None:
    large = b"1000\r\n" + bytes(4096) + b"\r\n"
    body = Body(0, chunked=True)
    assert (skip(body, large * 1000), body.is_wrong) == (b"", False)
    body = Body(0, chunked=True)
    skip(body, b"1\r\na\r\n" * (FREE_READS + BYTES_FOR_READ))
    assert body.is_wrong


@given(
    st.lists(st.sampled_from([b"0", b"1", b"a", b"\r", b"\n", b"\r\n", b";", b"x"]), max_size=20),
    st.data(),
)
def test_how_the_bytes_are_split_changes_nothing(words: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(words)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole, split = Body(0, chunked=True), Body(0, chunked=True)
    skip(whole, data)
    skip(split, *pieces)
    assert (whole.ended, whole.is_wrong) == (split.ended, split.is_wrong)
