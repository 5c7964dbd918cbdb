"""The version, the date and the folders of the project."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import derp

ROOT: Final = Path(__file__).resolve().parents[1]
DEPLOY: Final = ROOT / "deploy"
VERSION: Final = derp.__version__


class ReleaseError(Exception):
    """A release can't be made; says why, and what to do."""


def epoch() -> int:
    """Return the date of everything in the release: $SOURCE_DATE_EPOCH, or the last commit's.

    Raises ReleaseError where there is neither.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH", ""):
        if not re.fullmatch(r"\d{1,11}", given, re.ASCII):
            raise ReleaseError(f"SOURCE_DATE_EPOCH={given}: want seconds since 1970")
        return int(given)
    # A checkout may be another user's: that of who runs CI, where root makes the release.
    trusted = ["-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    asked = ["git", *trusted, "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        why = f"{ROOT} is no git checkout, so nothing has a date; set SOURCE_DATE_EPOCH"
        raise ReleaseError(why) from None


def run(*command: str, **variables: str) -> str:
    """Run a program; return what it prints. Raises ReleaseError with its last lines."""
    environment = {**os.environ, **variables}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ReleaseError(f"{command[0]}: {error.strerror}; install it") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ReleaseError(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout
