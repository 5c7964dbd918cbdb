"""The command's main, called with the arguments of an operator."""

from collections.abc import Callable

import pytest

from derp import cli
from derp.config import flag_table

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `derper`; return its exit code, standard output and standard error."""
    for flag in flag_table({}, root=True):
        if flag.variable:
            monkeypatch.delenv(flag.variable, raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
