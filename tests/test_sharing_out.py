"""The suites that share a machine: a file's tests share a process, and with it what they start."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("tests/test_map.py", "tests/config/test_strconv.py", "tests/log/test_coalesce.py")


@pytest.mark.slow
def test_a_file_s_tests_run_in_one_process() -> None:
    options = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-v")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    processes = defaultdict(set)
    for process, file in re.findall(r"^\[(gw\d)\] .* PASSED (\S+?)::", done.stdout, re.MULTILINE):
        processes[file].add(process)
    assert processes.keys() == {*FILES}
    assert all(len(found) == 1 for found in processes.values()), processes
