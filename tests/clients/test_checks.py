"""What the table says of a client that does not even start."""

import subprocess
from pathlib import Path

import pytest

from tests.interop.netns import Namespace
from tests.interop.tailnet import Node, last_words

PANIC = """dns: using "direct" mode
panic: runtime error: nil pointer dereference
goroutine 1 [running]:
"""


@pytest.mark.slow
def test_a_tailscaled_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "tailscaled.log").write_text(PANIC)
    with subprocess.Popen(["false"], text=True) as holder, subprocess.Popen(["false"]) as ended:
        ended.wait()
    node = Node("alice", Namespace(holder), tmp_path, {}, {}, process=ended)
    with pytest.raises(AssertionError, match="alice ended: panic: runtime error"):
        node.listens()


def test_why_a_go_program_ended_is_a_line() -> None:
    assert last_words(PANIC) == "panic: runtime error: nil pointer dereference"
    assert last_words("one\ncan't bind\n\n") == "can't bind"
    assert last_words("") == "it said nothing"
