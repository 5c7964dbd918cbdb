"""tailscaled's socket as a container sees it: bind mounts, and what becomes of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ASK = """
import sys, trio
from pathlib import Path
from derp.admission.question import Question
from derp.admission.tailscaled import Tailscaled
answer = trio.run(Tailscaled(Path(sys.argv[1])).ask, Question(bytes(32), "192.0.2.1"))
print(answer.outcome.value, answer.reason)
"""
LISTEN = """
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
"""


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skip where no mount namespace can be had."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("bind mounts want root, and unshare")
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace: {tried.stderr.decode().strip()}")


def asked(folder: Path, script: str, socket: str = "seen/sock") -> str:
    """Run a shell script in a mount namespace of its own; then ask, and return the answer."""
    shell = ["unshare", "--mount", "--propagation=private", "sh", "-euc", script]
    done = subprocess.run(
        [*shell, sys.executable, socket, LISTEN, ASK],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


# $0 is Python, $1 the socket to ask at, $2 makes one, $3 asks.
MADE = 'mkdir host seen; "$0" -c "$2" host/sock; '
MADE_ANEW = 'rm -r host; mkdir host; "$0" -c "$2" host/sock; '
ASKED = '"$0" -c "$3" "$1"'


@pytest.mark.usefixtures("mounts")
def test_a_mounted_directory_that_was_made_anew_on_the_host(tmp_path: Path) -> None:
    said = asked(tmp_path, f"{MADE} mount --bind host seen; {MADE_ANEW} {ASKED}")
    assert said.startswith(
        "unreachable -socket seen/sock: the directory it was in has been removed"
    )
    assert "RuntimeDirectoryPreserve=yes" in said
    assert "restart the container" in said


@pytest.mark.usefixtures("mounts")
def test_a_link_to_a_socket_in_such_a_directory(tmp_path: Path) -> None:
    script = f"{MADE} ln -s seen/sock link; mount --bind host seen; {MADE_ANEW} {ASKED}"
    assert "the directory it was in has been removed" in asked(tmp_path, script, "link")


@pytest.mark.usefixtures("mounts")
def test_a_mounted_socket_that_was_made_anew_on_the_host(tmp_path: Path) -> None:
    script = f"{MADE} touch seen/sock; mount --bind host/sock seen/sock; {MADE_ANEW} {ASKED}"
    said = asked(tmp_path, script)
    assert said.startswith("unreachable -socket seen/sock: it has been removed")
    assert "mount the directory it is in" in said


@pytest.mark.usefixtures("mounts")
def test_a_directory_above_that_is_mounted_holds(tmp_path: Path) -> None:
    """Nobody listens at the new socket, but it is the new one that is found."""
    script = f"{MADE} mkdir up; mount --bind . up; {MADE_ANEW} {ASKED}"
    said = asked(tmp_path, script, "up/host/sock")
    assert said.startswith("unreachable -socket up/host/sock: nobody listens there")


@pytest.mark.usefixtures("mounts")
def test_a_directory_that_stays_holds(tmp_path: Path) -> None:
    anew = 'rm host/sock; "$0" -c "$2" host/sock;'
    said = asked(tmp_path, f"{MADE} mount --bind host seen; {anew} {ASKED}")
    assert said.startswith("unreachable -socket seen/sock: nobody listens there")
