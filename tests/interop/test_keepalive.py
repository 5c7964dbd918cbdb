"""An idle client hears from the relay after a minute, and not all of them at once."""

import json
import subprocess
from collections.abc import Mapping

import pytest
from rawderp import KEEP_ALIVE
from watch_keepalive import CLIENTS


@pytest.mark.patient
@pytest.mark.parametrize("which", ["reference", "tested"])
def test_keepalive(which: str, idle_clients: Mapping[str, subprocess.Popen[str]]) -> None:
    output, _ = idle_clients[which].communicate(timeout=120)
    came = json.loads(output)
    assert [(kind, length) for _, kind, length in came] == [(KEEP_ALIVE, 0)] * CLIENTS
    seconds = [after for after, _, _ in came]
    assert min(seconds) > 59.9
    assert max(seconds) < 75, "60, 5 of jitter, and 10 for a busy machine"
    assert max(seconds) - min(seconds) > 0.2, "no jitter"
