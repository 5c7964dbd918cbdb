import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.admission import allowlist
from derp.admission.allowlist import AllowList, ListFormError, load, parse
from derp.admission.model import Outcome, Question
from derp.errors import ReloadError, StartError
from derp.wire.keys import node_public_text

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
A, B = node_public_text(ONE), node_public_text(TWO)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {}),
        ("\n\n  \n# nothing\n", {}),
        (A, {ONE: ""}),
        (f"{A}\n{B}\n", {ONE: "", TWO: ""}),
        (f"{A}\r{B}\r", {ONE: "", TWO: ""}),
        (
            f"  {A.upper().replace('NODEKEY', 'nodekey')}\t the  printer # old\r\n",
            {ONE: "the  printer"},
        ),
        (f"{A} one\n{A} two", {ONE: "two"}),
        (f"#{A}", {}),
        (f"{A}#label", {ONE: ""}),
    ],
)
def test_lists(text, keys):
    assert parse(text) == keys


@pytest.mark.parametrize(
    "line",
    [
        "nodekey:",
        A[:-1],
        f"{A}0",
        A.removeprefix("nodekey:"),
        f"mkey:{A.removeprefix('nodekey:')}",
        f"privkey:{A.removeprefix('nodekey:')}",
        f"printer {A}",
        f"{A},{B}",
        f"{A} {B}",
        f"{A} printer {B}",
        "\x00",
        "[AAECA]",
        "{",
    ],
)
def test_a_broken_line_is_named_and_not_repeated(line):
    with pytest.raises(ListFormError) as caught:
        parse(f"# one\n{A}\n{line}\n{B}")
    message = str(caught.value)
    assert message.startswith("line 3: want one key, nodekey: and 64 hex digits")
    assert "\n" not in message
    assert "000102" not in message


@given(st.text())
def test_any_text_is_a_list_or_an_error(text):
    with contextlib.suppress(ListFormError):
        assert all(len(key) == 32 for key in parse(text))


@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.just("label")))
def test_what_is_written_is_read(keys):
    assert parse("".join(f"{node_public_text(key)} label\n" for key in keys)) == keys


def test_a_byte_order_mark_and_odd_bytes_in_comments(tmp_path):
    file = tmp_path / "list"
    file.write_bytes(b"\xef\xbb\xbf" + A.encode() + b" # caf\xe9\n")
    assert load(file) == {ONE: ""}


@pytest.mark.parametrize("failure", [StartError, ReloadError])
def test_what_cant_be_read_names_the_flag_and_the_file(tmp_path, failure):
    for make in (
        lambda path: None,
        Path.mkdir,
        lambda path: path.write_text("x"),
        lambda path: path.write_text("# nobody\n"),
    ):
        file = tmp_path / "list"
        make(file)
        with pytest.raises(failure) as caught:
            load(file, failure)
        assert str(caught.value).startswith(f"-verify-client-file {str(file)!r}: ")
        assert "\n" not in str(caught.value)
        if file.is_dir():
            file.rmdir()


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(allowlist, "MAX_SIZE", 1 << 20)
    file = tmp_path / "list"
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ReloadError, match="at most 1 MiB"):
        load(file)


def test_the_list_answers():
    listing = AllowList(Path("x"), {ONE: "printer"})
    assert listing.check(Question(ONE, "192.0.2.1")).outcome is Outcome.ALLOWED
    answer = listing.check(Question(TWO, "192.0.2.1"))
    assert (answer.outcome, answer.reason) == (Outcome.REFUSED, "not in -verify-client-file")


@pytest.fixture
def listing(tmp_path):
    file = tmp_path / "list"
    file.write_text(A)
    return AllowList(file, load(file))


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReloadError, match="Not a regular file"):
        load(tmp_path / path)


def test_what_has_not_changed_is_not_new(listing):
    assert [listing.read_changed() for _ in range(3)] == [None] * 3
    assert listing.read_changed(at_once=True) is None


def test_a_change_is_read_once_it_has_lasted(listing):
    listing.read_changed()
    listing.read_changed()
    listing.path.write_text(B)
    assert listing.read_changed() is None
    assert listing.read_changed() == {TWO: ""}


def test_or_at_once(listing):
    listing.path.write_text(B)
    assert listing.read_changed(at_once=True) == {TWO: ""}


def test_a_broken_list_is_told_once(listing):
    listing.read_changed()
    listing.read_changed()
    listing.path.write_text(f"{B}\nnodekey:12")
    assert listing.read_changed() is None
    with pytest.raises(ReloadError, match="line 2"):
        listing.read_changed()
    assert [listing.read_changed() for _ in range(3)] == [None] * 3
    with pytest.raises(ReloadError):
        listing.read_changed(at_once=True)
    listing.path.write_text(B)
    assert listing.read_changed() is None
    assert listing.read_changed() == {TWO: ""}


def test_a_change_while_it_is_read_is_looked_at_again(listing, monkeypatch):
    listing.read_changed()
    listing.read_changed()
    listing.path.write_text("half")
    listing.read_changed()

    def load_late(path):
        path.write_text(B)
        raise ReloadError("half")

    with monkeypatch.context() as patch:
        patch.setattr(allowlist, "load", load_late)
        assert listing.read_changed() is None
    assert listing.read_changed() is None
    assert listing.read_changed() == {TWO: ""}
