"""The Debian package: a bundle in /usr/lib/derper, with user, unit, settings and manual page.

It is put together by dpkg-deb from files that are complete: nothing is compiled, so no machine of
the package's architecture is needed. deploy/debian has its scripts.
"""

import gzip
import hashlib
import os
import re
import time
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final

import attrs

from release.bundle import ARCHITECTURES, PYTHONS, Bundle
from release.project import DEPLOY, ROOT, VERSION, ReleaseError, run

LIB: Final = "usr/lib/derper"
DOC: Final = "usr/share/doc/derper"
UNITS: Final = "usr/lib/systemd/system"
SETTINGS: Final = "etc/default/derper"
REVISION: Final = 1
EXAMPLES: Final = ("policy.example.toml", "policy.schema.json", "fail2ban", "monitoring")

_DESCRIPTION: Final = """\
Description: DERP relay and STUN responder for Tailscale clients
 Where two machines of a tailnet can't reach each other directly, their
 encrypted packets go through a DERP relay; STUN beside it tells clients their
 public address. This one takes the place of the Go derper: same flags,
 variables, files, protocol and metrics. It is written in Python, on Trio.
 .
 The Python packages that it needs are in it, as Debian's are older.
"""

_OVERRIDES: Final = """\
# It is not for Debian's archive.
derper: initial-upload-closes-no-bugs *
# Compiled modules are those of the wheels that PyPI has, byte for byte: so their hashes, which are
# pinned, vouch for them. They were built, and not stripped, by those who publish them.
derper: embedded-library libyaml *usr/lib/derper/yaml/*
derper: hardening-no-fortify-functions *usr/lib/derper/*
derper: unstripped-binary-or-object *usr/lib/derper/*
# Each Python package keeps its license texts, as these ask.
derper: extra-license-file *usr/lib/derper/*
derper: repeated-path-segment licenses *usr/lib/derper/*
# Modules that could be run as scripts, and are not.
derper: unusual-interpreter python *usr/lib/derper/*
"""


@attrs.frozen
class Maintainer:
    """The maintainer of the package, as its fields have it."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>"


def maintainer() -> Maintainer:
    """Return $DEBFULLNAME and $DEBEMAIL, or the author of commits here. Raises ReleaseError."""
    found = []
    for variable, setting in (("DEBFULLNAME", "user.name"), ("DEBEMAIL", "user.email")):
        value = os.environ.get(variable, "")
        if not value:
            try:
                value = run("git", "-C", str(ROOT), "config", setting).strip()
            except ReleaseError:
                raise ReleaseError(f"who maintains the Debian package? set {variable}") from None
        found.append(value)
    return Maintainer(*found)


def version_of(version: str) -> str:
    """Return the package's version for the project's: 1.0rc1, say, comes before 1.0."""
    return re.sub(r"(?<=\d)(a|b|rc|\.dev)(?=\d)", r"~\1", version) + f"-{REVISION}"


def write(folder: Path, bundle: Bundle, page: str, date: int, work: Path) -> Path:
    """Write the package of a bundle to `folder`; `work` is for what goes into it.

    Raises ReleaseError.
    """
    responsible = maintainer()
    for name, content in bundle.files.items():
        _put(work / LIB / name, content, executable=name == "derper")
    (work / "usr/bin").mkdir(parents=True)
    (work / "usr/bin/derper").symlink_to("../lib/derper/derper")
    for unit in ("derper.service", "derper.socket"):
        _put(work / UNITS / unit, unit_of((DEPLOY / unit).read_text("utf-8")).encode())
    _put(work / SETTINGS, (DEPLOY / "debian/derper.default").read_bytes())
    hook = (DEPLOY / "debian/derper.rtupdate").read_bytes()
    _put(work / "usr/share/python3/runtime.d/derper.rtupdate", hook, executable=True)
    _put(work / "usr/share/man/man8/derper.8.gz", _packed(page.encode()))
    _put(work / "usr/share/lintian/overrides/derper", _OVERRIDES.encode())
    _documents(work / DOC, bundle, responsible, date)
    _control(work, bundle, responsible)
    for path in (work, *work.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (date, date), follow_symlinks=False)
    name = f"derper_{version_of(VERSION)}_{ARCHITECTURES[bundle.architecture]}.deb"
    built = folder / name
    build = ("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(work), str(built))
    run(*build, SOURCE_DATE_EPOCH=str(date))
    return built


def unit_of(text: str) -> str:
    """Return a unit of deploy/ as the package has it: no steps to install it, and its own paths."""
    unit = text[text.index("[Unit]") :].replace("/opt/derper/bin/derper", "/usr/bin/derper")
    return unit.replace("[Unit]\n", "[Unit]\nDocumentation=man:derper(8)\n", 1)


def _documents(folder: Path, bundle: Bundle, responsible: Maintainer, date: int) -> None:
    day = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(date))
    entry = (
        f"derper ({version_of(VERSION)}) unstable; urgency=medium\n\n"
        f"  * Release {VERSION}; changelog.gz says what is new.\n\n -- {responsible}  {day}\n"
    )
    _put(folder / "changelog.Debian.gz", _packed(entry.encode()))
    _put(folder / "changelog.gz", _packed((ROOT / "CHANGELOG.md").read_bytes()))
    _put(folder / "copyright", copyright_of(bundle).encode())
    for name in EXAMPLES:
        source, target = DEPLOY / name, folder / "examples" / name
        files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
        for file in files:
            _put(target / file.relative_to(source), file.read_bytes())


def copyright_of(bundle: Bundle) -> str:
    """Return debian/copyright in its machine-readable form, with each Python package's license."""
    ours = (ROOT / "LICENSE").read_text("utf-8")
    own = re.search(r"(?m)^Copyright (?:\(c\) )?(.*)$", ours)
    text = "\n".join(f" {line or '.'}" for line in ours.splitlines())
    parts = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        f"Files: *\nCopyright: {own[1] if own else 'its authors'}\nLicense: BSD-3-Clause\n{text}",
    ]
    terms = set()
    for name, content in bundle.files.items():
        if not re.fullmatch(r"[^/]+\.dist-info/METADATA", name) or name.startswith("trio_derper-"):
            continue
        about = Parser().parsestr(content.decode("utf-8"))
        terms.add(license_of(about))
        who = about["Author"] or about["Author-email"] or f"the authors of {about['Name']}"
        parts.append(
            f"Files: {LIB}/{name.partition('/')[0]}/*\nCopyright: {' '.join(who.split())}\n"
            f"License: {license_of(about)}\n"
            f"Comment: {about['Name']} {about['Version']}, and all that its wheel has."
        )
    where = f"The text is in the dist-info of each package, below /{LIB}."
    parts += [f"License: {name}\n {where}" for name in sorted(terms)]
    return "\n\n".join(parts) + "\n"


_TROVE: Final = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def license_of(about: Message) -> str:
    """Return the license that a package's metadata tell, as SPDX has it or in their own words."""
    if expression := about["License-Expression"]:
        return re.sub(r" (OR|AND) ", lambda match: match[0].lower(), str(expression))
    for classifier in about.get_all("Classifier", []):
        kind, _, name = classifier.rpartition(" :: ")
        if kind.startswith("License"):
            return _TROVE.get(name, _as_word(name))
    return _as_word(str(about["License"] or "its-own"))


def _as_word(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def _control(work: Path, bundle: Bundle, responsible: Maintainer) -> None:
    size = sum(file.lstat().st_size for file in work.rglob("*") if file.is_file())
    major, minor = PYTHONS[-1].split(".")
    depends = [
        f"python3 (>= {PYTHONS[0]})",
        f"python3 (<< {major}.{int(minor) + 1})",
        f"libc6 (>= {bundle.glibc[0]}.{bundle.glibc[1]})",
        "libgcc-s1",
        "adduser",
        "init-system-helpers (>= 1.54~)",
    ]
    fields = [
        "Package: derper",
        f"Version: {version_of(VERSION)}",
        "Section: net",
        "Priority: optional",
        f"Architecture: {ARCHITECTURES[bundle.architecture]}",
        f"Maintainer: {responsible}",
        f"Installed-Size: {size // 1024}",
        f"Depends: {', '.join(depends)}",
        # For who asks an admission URL, or another relay of the mesh.
        "Recommends: ca-certificates",
        # `derper top` shows with it; that of Debian 12 is too old.
        "Suggests: fail2ban, prometheus, python3-rich (>= 13.7)",
    ]
    sums = "".join(
        f"{hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()}  "
        f"{file.relative_to(work)}\n"
        for file in sorted(work.rglob("*"))
        if file.is_file() and not file.is_symlink() and file.relative_to(work).parts[0] != "etc"
    )
    control = work / "DEBIAN"
    _put(control / "control", ("\n".join(fields) + f"\n{_DESCRIPTION}").encode())
    _put(control / "conffiles", f"/{SETTINGS}\n".encode())
    _put(control / "md5sums", sums.encode())
    for script in ("postinst", "prerm", "postrm"):
        _put(control / script, (DEPLOY / "debian" / script).read_bytes(), executable=True)


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _put(path: Path, content: bytes, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
