"""Two processes of a run, as two users of one file: one thing is made, and removed once."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.container.sharing import shared


def test_the_first_makes_it_and_the_last_removes_it(tmp_path: Path) -> None:
    made: list[str] = []
    removed: list[str] = []

    def make() -> str:
        made.append(f"image {len(made)}")
        return made[-1]

    def use() -> ExitStack:
        stack = ExitStack()
        assert stack.enter_context(shared(tmp_path / "mark", make, removed.append)) == made[-1]
        return stack

    first, second = use(), use()
    assert made == ["image 0"]
    first.close()
    assert not removed
    second.close()
    assert removed == ["image 0"]
    # Whoever comes after that makes another one.
    use().close()
    assert removed == made == ["image 0", "image 1"]


def test_what_could_not_be_made_is_tried_by_the_next(tmp_path: Path) -> None:
    def fail() -> str:
        raise ValueError

    with pytest.raises(ValueError), shared(tmp_path / "mark", fail, print):  # noqa: PT011
        pass
    with shared(tmp_path / "mark", lambda: "image", lambda _: None) as name:
        assert name == "image"
