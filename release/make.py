"""Make all files of a release: `python -m release.make [FOLDER]`; FOLDER is dist, unless named.

FOLDER is emptied first. SOURCE_DATE_EPOCH gives everything its date; else the last commit does.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release import bundle, debian, manpage, pyz, sbom
from release.project import ROOT, VERSION, ReleaseError, epoch, run

SUMS: Final = "SHA256SUMS"


def make(folder: Path) -> None:
    """Make the files. Raises ReleaseError."""
    date = epoch()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="derper-release-") as work:
        wheel = _distributions(folder, date)
        bundles = [
            bundle.make(architecture, wheel, Path(work, "wheels"))
            for architecture in bundle.ARCHITECTURES
        ]
        pyz.write(folder / "derper.pyz", bundles, date)
        page = manpage.page(date)
        (folder / "derper.8").write_text(page, "utf-8")
        for each in bundles:
            debian.write(folder, each, page, date, Path(work, each.architecture))
        sbom.write(folder / f"derper-{VERSION}.cdx.json", wheel, Path(work, "environment"), date)
    (folder / SUMS).write_text(sums(folder), "utf-8")


def _distributions(folder: Path, date: int) -> Path:
    """Make the source archive and the wheel out of it; return the wheel."""
    # The build's requirements are those of deploy/requirements-build.txt, installed here.
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    run(*build, SOURCE_DATE_EPOCH=str(date))
    made = sorted(folder.iterdir())
    expected = [f"trio_derper-{VERSION}-py3-none-any.whl", f"trio_derper-{VERSION}.tar.gz"]
    if [file.name for file in made] != expected:
        raise ReleaseError(f"built {[file.name for file in made]}, and not {expected}")
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, made))
    return made[0]


def sums(folder: Path) -> str:
    """Return the checksums of the folder's files, as `sha256sum --check` reads them."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
        if file.name != SUMS
    )


def main(arguments: Sequence[str]) -> int:
    """Make a release in the folder that is named; return the exit code."""
    folder = Path(arguments[0] if arguments else ROOT / "dist")
    try:
        make(folder)
    except ReleaseError as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    for line in sums(folder).splitlines():
        name = line.split()[1]
        print(f"{(folder / name).stat().st_size:>12,}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
