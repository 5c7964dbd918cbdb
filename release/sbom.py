"""The contents of derper.pyz and of the Debian package, as CycloneDX 1.6 in JSON.

It names the Python packages, with their licenses and what needs what. What is compiled into those,
such as OpenSSL into cryptography, they tell themselves: cryptography has a list of its own in its
dist-info.
"""

import json
import sys
import venv
from pathlib import Path
from typing import Final

from release.bundle import pins
from release.project import ROOT, VERSION, run

SPECIFICATION: Final = "1.6"


def write(path: Path, wheel: Path, folder: Path, epoch: int) -> None:
    """Write the file, from an environment in `folder` with the relay's wheel and nothing else.

    Raises ReleaseError.
    """
    venv.create(folder, clear=True)
    python = str(folder / "bin" / "python")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    pinned = folder / "requirements.txt"
    pinned.write_text(pins(), "utf-8")
    run(*pip, "--require-hashes", "--only-binary=:all:", "-r", str(pinned))
    run(*pip, "--no-deps", str(wheel))
    made = run(
        *(str(Path(sys.executable).parent / "cyclonedx-py"), "environment", python),
        *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type=application"),
        *("--output-reproducible", f"--spec-version={SPECIFICATION}", "--output-format=JSON"),
        SOURCE_DATE_EPOCH=str(epoch),
    )
    described = json.loads(made)
    # pyproject.toml has no version: it is in derp/__init__.py.
    relay = described["metadata"]["component"]
    relay |= {"version": VERSION, "purl": f"pkg:pypi/{relay['name']}@{VERSION}"}
    path.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", "utf-8")
