"""Every client against this relay: `python -m tests.clients.session [NAME ...]`.

Two tailscaled of the release, which can reach each other only through the relay, log in, ping each
other, move 20 MB with a checksum, and again after the relay was killed and started; then, where the
release knows pinned certificates, with one. What is not tailscaled does what it can.
Each row goes into docs/compatibility.md as it is done.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trustme

from tests.clients import others, page
from tests.clients.checks import CHECKS, PINNED, play
from tests.clients.releases import RELEASES, CannotBuildError, Release, build
from tests.interop import golang
from tests.interop.netns import NoNamespacesError, check_possible
from tests.interop.relay import TestCA


def row(release: Release, derpcheck: Path, ca: TestCA) -> page.Row:
    """The release's row in the table."""
    today = time.strftime("%Y-%m-%d")
    try:
        binaries = build(release)
    except CannotBuildError as error:
        told = [f"can't be built: {error}".replace("|", "/"), *["-"] * len(CHECKS)]
        return [release.version, release.built_with, *told, today]
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        played = dict(play({"derpcheck": derpcheck, **binaries}, ca, Path(folder), release))
    cells = [played.get(name, "not reached") for name in (*CHECKS, PINNED)]
    return [release.version, release.built_with, *cells, today]


def row_of_other(other: others.Other, ca: TestCA) -> page.Row:
    """The row of a client that is no tailscaled."""
    today = time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        try:
            played = dict(others.play(other, ca, Path(folder)))
        except CannotBuildError as error:
            told = [f"can't be built: {error}".replace("|", "/"), *["-"] * len(CHECKS)]
            return [other.name, other.built_with, *told, today]
    return [other.name, other.built_with, *(played[name] for name in (*CHECKS, PINNED)), today]


def is_bad(cells: page.Row) -> bool:
    return any(cell.startswith("no") for cell in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="*", help="only these")
    wanted = parser.parse_args().name
    releases = {release.version: release for release in RELEASES}
    programs = {other.name: other for other in others.OTHERS}
    if unknown := [name for name in wanted if name not in page.NAMES]:
        parser.error(f"{', '.join(unknown)}: not among {', '.join(page.NAMES)}")
    try:
        check_possible()
    except NoNamespacesError as error:
        print(f"NOT RUN: {error}", flush=True)
        return 1
    bad = 0
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    with tempfile.TemporaryDirectory(prefix="clients-ca-") as folder:
        pem = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(pem)
        ca = TestCA(authority, pem)
        derpcheck = golang.build()["derpcheck"]
        for name in wanted or page.NAMES:
            if name in programs:
                cells = row_of_other(programs[name], ca)
            else:
                cells = row(releases[name], derpcheck, ca)
            print(" | ".join(cells), flush=True)
            bad += is_bad(cells)
            page.PAGE.write_text(page.with_rows(page.PAGE.read_text(), {name: cells}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
