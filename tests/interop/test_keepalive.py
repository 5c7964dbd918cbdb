"""An idle client hears from the relay within a minute, and not all of them at once."""

import json
import subprocess
from collections.abc import Mapping

import pytest

from tests.interop.watch_keepalive import CLIENTS
from tests.support.derp import KEEP_ALIVE


@pytest.mark.patient
@pytest.mark.parametrize(("which", "after"), [("reference", 60), ("tested", 40)])
def test_keepalive(
    which: str, after: float, is_go: bool, idle_clients: Mapping[str, subprocess.Popen[str]]
) -> None:
    after = 60 if is_go else after
    output, _ = idle_clients[which].communicate(timeout=120)
    came = json.loads(output)
    assert [(kind, length) for _, kind, length in came] == [(KEEP_ALIVE, 0)] * CLIENTS
    seconds = [after for after, _, _ in came]
    assert min(seconds) > after - 0.1
    assert max(seconds) < after + 15, "5 of jitter, and 10 for a busy machine"
    assert max(seconds) - min(seconds) > 0.2, "no jitter"
