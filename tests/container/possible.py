"""Says whether podman runs containers here, and on which base image: exit code 0, or 1 and why not.

python tests/container/possible.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]

import images  # noqa: E402 — it lies there
from podman import NoPodmanError  # noqa: E402

if __name__ == "__main__":
    try:
        podman, base = images.find()
    except (NoPodmanError, images.WrongBaseError) as error:
        sys.exit(f"possible: {error}")
    print(f"podman works, with {base}")
