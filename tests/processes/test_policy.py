"""The command with a policy, as one process and as several."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.process import derper
from tests.processes.test_verification import login, new_key, page


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_policy_is_in_force_and_changes(tmp_path: Path, workers: str) -> None:
    (member, name), (stranger, _) = new_key(), new_key()
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[defaults]\ndeny = true\n[clients."{name}"]\nallow = true\n')
    flags = ("-policy", str(policy), "-workers", workers)
    with derper(tmp_path, *flags, tls=False) as relay:
        relay.wait_for('"policy in force" entries=1 allowed=1 denied=0 others=denied')
        port = relay.port("HTTP")
        for _ in range(8):
            assert login(port, member)
            assert not login(port, stranger)
        assert "1 entries, 0 of them denied" in page(relay, "/debug/")
        policy.write_text(f'[clients."{name}"]\ndeny = 1\n')
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_for('"the old policy stays in force" reason=.*line 2: deny: want true or false')
        assert login(port, member)
        policy.write_text(f'[clients."{name}"]\ndeny = true\n')
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_for('"new policy" entries=1 allowed=0 denied=1')
        for _ in range(8):
            assert not login(port, member)
            assert login(port, stranger)


def test_a_wrong_policy_is_named_by_its_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('# ours\n\n[defaults]\nrate = "10"\n')
    done = subprocess.run(
        [sys.executable, "-m", "derp", "-dev", "-a", "127.0.0.1:0", "-policy", str(policy)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    want = 'want a rate such as "10 Mbit/s" or "2 MB/s", or "unlimited"'
    assert line == f"derper: -policy '{policy}': line 4: rate 10: {want}"
