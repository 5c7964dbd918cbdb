"""A list of keys with some more or fewer, and all else as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.admission.allowlist import ListFormError, parse
from derp.admission.listedit import ListChange, check_label
from derp.wire.keys import node_public_text

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 0xAB, 3))
A, B, C = map(node_public_text, (ONE, TWO, THREE))


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (ListChange({ONE: "laptop"}), "", f"{A}  laptop\n"),
        (ListChange({ONE: None}), "# who\n", f"# who\n{A}\n"),
        (ListChange({ONE: None, TWO: "x y"}), f"{C} z", f"{C} z\n{A}\n{B}  x y\n"),
        (ListChange({ONE: "x"}), f"{B}\r\n# end\r\n", f"{B}\r\n# end\r\n{A}  x\r\n"),
        # One that is there stays where it is, and gets the label that is given.
        (ListChange({ONE: None}), f"  {A}\tmine # old\n{B}\n", f"  {A}\tmine # old\n{B}\n"),
        (ListChange({ONE: "yours"}), f"  {A}\tmine # old\n{B}", f"  {A}\tyours # old\n{B}"),
        (ListChange({ONE: "x"}), f"{A}# old", f"{A}  x  # old"),
        (ListChange({TWO: "x"}), f"{B.upper().replace('NODEKEY', 'nodekey')}\n", None),
        (ListChange({ONE: "x"}, keeps_labels=True), f"{A} mine\n", f"{A} mine\n"),
        (ListChange({ONE: "x"}, keeps_labels=True), f"{B} y\n", f"{B} y\n{A}  x\n"),
        # A line goes, and the comment in it stays.
        (ListChange(remove=[ONE]), f"# a\n{A} mine\n\n{B}\n", f"# a\n\n{B}\n"),
        (ListChange(remove=[ONE]), f"{B}\n{A} mine # lent\r\n", f"{B}\n# lent\r\n"),
        (ListChange(remove=[ONE]), f"{A}\n{B}\n  {A} twice", f"{B}\n"),
        (ListChange(remove=[ONE]), f"# {A}\n{B}", f"# {A}\n{B}"),
    ],
)
def test_what_is_changed(change: ListChange, before: str, after: str | None) -> None:
    got = change.applied_to(before)
    assert after is None or got == after
    assert change.applied_to(got) == got


@pytest.mark.parametrize("label", ["", " x", "a # b", A, "x" * 65, "two\nlines", "\x1b"])
def test_what_is_no_label(label: str) -> None:
    with pytest.raises(ValueError, match="want a label"):
        check_label(label)
    with pytest.raises(ValueError, match="want a label"):
        ListChange({ONE: label})


LINES = st.lists(
    st.one_of(
        st.sampled_from([A, B, C]).flatmap(
            lambda key: st.text(st.sampled_from(" \t#xé\x1c"), max_size=6).map(
                lambda rest: f"{key} {rest}"
            )
        ),
        st.sampled_from(["", "# comment", "  "]),
    )
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(LINES, ENDS, st.booleans(), st.sampled_from([None, "label"]), st.booleans())
def test_nothing_else_is_changed(
    lines: list[str], end: str, last: bool, label: str | None, removed: bool
) -> None:
    text = end.join(lines) + end * last
    before = parse(text)
    change = ListChange(remove=[ONE]) if removed else ListChange({ONE: label})
    after = parse(change.applied_to(text))
    if removed:
        assert after == {key: value for key, value in before.items() if key != ONE}
    else:
        assert after == before | {ONE: before.get(ONE, "") if label is None else label}
    comments = [line[line.index("#") :] for line in lines if "#" in line]
    kept = change.applied_to(text)
    assert all(comment in kept for comment in comments)


@given(st.text())
def test_any_list_can_be_edited(text: str) -> None:
    try:
        before = parse(text)
    except ListFormError:
        return
    assert parse(ListChange({ONE: "x"}).applied_to(text)) == before | {ONE: "x"}
    assert parse(ListChange(remove=before).applied_to(text)) == {}
