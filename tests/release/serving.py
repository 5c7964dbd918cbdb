"""Has a relay that was installed serve Go's clients."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.relay import Relay, TestCA, environment, running


def run(*command: str | Path, timeout: float = 300, **variables: str) -> str:
    """Run a command that has to succeed; return its output."""
    done = attempt(*command, timeout=timeout, **variables)
    assert done.returncode == 0, (done.args, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def attempt(
    *command: str | Path, timeout: float = 300, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command with nothing of this environment that would change what it imports."""
    return subprocess.run(
        list(map(str, command)),
        cwd="/",
        env=clean(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def clean(**variables: str) -> dict[str, str]:
    """The environment but for Python's and nox's variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "NOX", "COVERAGE", "DERP"))
    }
    return {**kept, **variables}


def serves(
    command: Sequence[str | Path],
    folder: Path,
    binaries: Mapping[str, Path],
    ca: TestCA,
    *flags: str,
    **variables: str,
) -> str:
    """Two of Go's clients send each other packets through the relay, and STUN answers.

    Returns the relay's log.
    """
    ca.issue(folder, "localhost")
    words = list(map(str, command))
    relay = Relay("relay", words, folder, stun=True, flags=flags, env=clean(**variables))
    with running(relay):
        node = {"Name": "a", "RegionID": 900, "HostName": "localhost", "IPv4": "127.0.0.1"}
        placed = json.dumps({**node, "DERPPort": relay.port})
        for arguments in (("talk", "-node", placed), ("stun", f"127.0.0.1:{relay.stun_port}")):
            done = subprocess.run(
                [binaries["derpcheck"], *arguments],
                env=environment(SSL_CERT_FILE=str(ca.pem)),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (done.stdout, done.stderr, relay.log)
            assert not json.loads(done.stdout).get("error"), (done.stdout, relay.log)
    return relay.log
