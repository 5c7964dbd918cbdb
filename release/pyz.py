"""derper.pyz: bundles for several architectures in one file that python3 runs.

Its start is release/inside; the rest are the bundles' files, what they have in common once. The
same bundles make the same bytes.
"""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release.bundle import PYTHONS, Bundle

INSIDE: Final = Path(__file__).parent / "inside"
COMMON: Final = "common"
SHEBANG: Final = b"#!/usr/bin/env python3\n"


def write(path: Path, bundles: Sequence[Bundle], epoch: int) -> None:
    """Write the file, with `epoch` as the date of all that is in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("__main__.py", "unpack.py"):
            # Not compressed: a Python without zlib shall say so.
            _add(archive, name, (INSIDE / name).read_bytes(), epoch, zipfile.ZIP_STORED)
        index = json.dumps(index_of(bundles), indent=1).encode()
        _add(archive, "bundles.json", index, epoch, zipfile.ZIP_STORED)
        for name, file in placed(bundles).items():
            _add(archive, name, file, epoch, zipfile.ZIP_DEFLATED)
    path.write_bytes(SHEBANG + content.getvalue())
    path.chmod(0o755)


def index_of(bundles: Sequence[Bundle]) -> dict[str, object]:
    """Return what release/inside/unpack.py reads."""
    return {
        "pythons": PYTHONS,
        "bundles": {
            bundle.architecture: {
                "digest": bundle.digest,
                "glibc": bundle.glibc,
                "folders": [COMMON, bundle.architecture],
            }
            for bundle in bundles
        },
    }


def placed(bundles: Sequence[Bundle]) -> dict[str, bytes]:
    """Return all files by their path in the archive: `common/…`, or `x86_64/…`."""
    first, *others = bundles
    common = {
        name: content
        for name, content in first.files.items()
        if all(other.files.get(name) == content for other in others)
    }
    found = {f"{COMMON}/{name}": content for name, content in common.items()}
    for bundle in bundles:
        for name, content in bundle.files.items():
            if name not in common:
                found[f"{bundle.architecture}/{name}"] = content
    return found


def _add(archive: zipfile.ZipFile, name: str, content: bytes, epoch: int, how: int) -> None:
    entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
    entry.external_attr = 0o100644 << 16
    entry.create_system = 3
    archive.writestr(entry, content, how, 9)
