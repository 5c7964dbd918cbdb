"""The NixOS module can be read. That is all that is known of it."""

import shutil
import subprocess

import pytest

from tests.deploy.files import DEPLOY


def test_nix_reads_it() -> None:
    if not shutil.which("nix-instantiate"):
        pytest.skip("nix-instantiate is not installed (Debian: nix-bin)")
    module = DEPLOY / "nixos/derper.nix"
    command = ["nix-instantiate", "--parse", module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
