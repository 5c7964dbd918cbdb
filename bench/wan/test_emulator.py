"""The tests of the emulator, in Go: buffer, delay, rate, loss as functions of a time passed in."""

import shutil
import subprocess

import pytest

from bench.wan.cable import BENCH


@pytest.mark.skipif(not shutil.which("go"), reason="the emulator NOT TESTED: there is no Go")
def test_the_link():
    for words in (["vet"], ["test", "-count=1"]):
        done = subprocess.run(
            ["go", *words, "./wan/emulator"], cwd=BENCH, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
