"""What people who run a relay have on their command lines starts, or says in one line why not."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.field.setups import SETUPS, Setup
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.relay import START_TIMEOUT, STOP_TIMEOUT, TestCA, die_with_parent

PREFIXES = ("/app/", "/derper", "/cert", "/etc/derp/", "/etc/derp ", "/usr/local/bin/", "/root/")
CERTDIR = re.compile(r"certdir[= ](\S+)")


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A network in which all ports are free, and from which nobody can be reached."""
    skip_unless_possible("no network where ports 80 and 443 are free")
    with closing(Namespace.make()) as made:
        yield made


def placed(text: str, folder: Path) -> str:
    """With paths of the set-up's own below this folder."""
    return re.sub(rf"(?<![\w/.])(?={'|'.join(PREFIXES)})", str(folder), text)


def install(setup: Setup, folder: Path, ca: TestCA) -> dict[str, str]:
    """Put certificates and the program where the set-up wants them; return its environment."""
    env = {name: placed(value, folder) for name, value in setup.env.items()}
    line = placed(setup.line, folder)
    program = Path(line.split()[0])
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m derp "$@"\n')
    program.chmod(0o755)
    found = CERTDIR.search(line)
    named = found[1] if found else env.get("DERP_CERT_DIR", "")
    certdir = Path(re.sub(r"\$(\w+)", lambda match: env[match[1]], named) or folder)
    certdir.mkdir(parents=True, exist_ok=True)
    ca.issue(certdir, setup.hostname)
    (folder / "app/state").mkdir(parents=True, exist_ok=True)
    # Where the Go derper's default is.
    key = {} if re.search(r" -c[= ]", line) else {"DERP_KEY_FILE": str(folder / "derper.key")}
    path = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return {**path, **key, **env}


def said(process: "subprocess.Popen[str]", log: Path) -> str:
    """What it logs until everything is served, or it has ended."""
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None:
        if re.search(r"STUN server listening", log.read_text()):
            break
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return log.read_text()


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_setup(setup: Setup, space: Namespace, test_ca: TestCA, tmp_path: Path) -> None:
    env = install(setup, tmp_path, test_ca)
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*space.prefix, "sh", "-c", f"exec {placed(setup.line, tmp_path)}"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
    try:
        text = said(process, log)
        if setup.addr is None:
            assert process.wait(STOP_TIMEOUT) in {1, 2}, text
            (line,) = text.splitlines()
            assert line.startswith("derper: ")
            assert setup.warns in line
            return
        assert process.poll() is None, text
        assert f'"serving on {setup.addr}{" with TLS" if setup.tls else ""}"' in text, text
        assert (f'"serving on {setup.http}"' in text) == (setup.http is not None), text
        assert re.search(rf"STUN server listening on \S+:{setup.stun}\"", text), text
        assert setup.warns in text, text
        listening = space.run("cat", "/proc/net/tcp", "/proc/net/tcp6")
        port = int(setup.addr.rpartition(":")[2])
        assert re.search(rf":{port:04X} [0-9A-F]+:0000 0A ", listening), listening
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)
