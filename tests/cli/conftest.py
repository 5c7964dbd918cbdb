"""The command's main, called with the arguments of an operator."""

from collections.abc import Callable

import pytest

from derp.cli import healthcheck, main, mapcheck
from derp.config import flag_table
from tests.patience import PATIENCE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `derper`; return its exit code, standard output and standard error.

    The relays that it asks may be slow, since the machine may be busy.
    """
    for command in (healthcheck, mapcheck):
        monkeypatch.setattr(command, "TIMEOUT", PATIENCE)
    for flag in flag_table({}, root=True):
        if flag.variable:
            monkeypatch.delenv(flag.variable, raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
