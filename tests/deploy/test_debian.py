"""The Debian package's parts, as they are made of deploy/ and of the wheels."""

import re
import subprocess
from email.message import Message

import pytest

from release import debian
from release.bundle import Bundle
from release.project import ReleaseError
from tests.deploy.files import DEPLOY, SERVICE, SOCKET

SCRIPTS = ("postinst", "prerm", "postrm", "derper.rtupdate")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("0.1.0", "0.1.0-1"),
        ("1.2rc1", "1.2~rc1-1"),
        ("1.2b2", "1.2~b2-1"),
        ("1.2.dev3", "1.2~.dev3-1"),
        ("1.2.post1", "1.2.post1-1"),
    ],
)
def test_what_comes_before_a_version_sorts_before_it(ours: str, theirs: str) -> None:
    assert debian.version_of(ours) == theirs


def test_the_units_run_the_package_and_are_else_the_same() -> None:
    service = SERVICE.read_text("utf-8")
    unit = debian.unit_of(service)
    assert unit.startswith("[Unit]\nDocumentation=man:derper(8)\n")
    assert "\nExecStart=/usr/bin/derper -hostname ${DERP_DOMAIN} $FLAGS\n" in unit
    assert "/opt/" not in unit
    ours, theirs = (set(text.splitlines()) for text in (service, unit))
    assert theirs - ours == {
        "Documentation=man:derper(8)",
        "ExecStart=/usr/bin/derper -hostname ${DERP_DOMAIN} $FLAGS",
    }
    socket = debian.unit_of(SOCKET.read_text("utf-8"))
    assert "ListenStream=[::]:443\n" in socket


def test_files_and_user_are_those_of_the_unit() -> None:
    unit = SERVICE.read_text("utf-8")
    assert f"EnvironmentFile=-/{debian.SETTINGS}\n" in unit
    assert "User=derper\n" in unit
    postinst = (DEPLOY / "debian/postinst").read_text("utf-8")
    assert re.search(r"adduser --system .* --home /var/lib/derper derper\n", postinst)
    assert "rm -rf /var/lib/derper\n" in (DEPLOY / "debian/postrm").read_text("utf-8")
    # The settings say nothing until somebody fills them in.
    settings = (DEPLOY / "debian/derper.default").read_text("utf-8")
    assert [line for line in settings.splitlines() if line and line[0] != "#"] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_read_and_ends_at_the_first_failure(script: str) -> None:
    path = DEPLOY / "debian" / script
    assert path.read_text("utf-8").splitlines()[0] == "#!/bin/sh"
    assert "\nset -e\n" in path.read_text("utf-8")
    subprocess.run(["sh", "-n", path], check=True)


def about(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("metadata", "terms"),
    [
        (about(License_Expression="MIT OR Apache-2.0"), "MIT or Apache-2.0"),
        (about(Classifier="License :: OSI Approved :: Apache Software License"), "Apache-2.0"),
        (about(License="Some Words, v2"), "Some-Words-v2"),
        (about(), "its-own"),
    ],
)
def test_the_license_of_a_package(metadata: Message, terms: str) -> None:
    assert debian.license_of(metadata) == terms


def test_the_copyright_file_has_each_package_and_our_license_as_it_is() -> None:
    metadata = b"Name: some\nVersion: 1\nAuthor: Some Body\nLicense-Expression: MIT\n\n"
    made = Bundle("x86_64", {"some-1.dist-info/METADATA": metadata}, (2, 17))
    text = debian.copyright_of(made)
    first, ours, its, terms = text.strip().split("\n\n")
    assert first.startswith("Format: ")
    assert ours.startswith("Files: *\nCopyright: ")
    assert " .\n 2. Redistributions in binary form" in ours
    assert its.splitlines()[:3] == [
        "Files: usr/lib/derper/some-1.dist-info/*",
        "Copyright: Some Body",
        "License: MIT",
    ]
    assert terms.startswith("License: MIT\n ")


def test_somebody_answers_for_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBFULLNAME", "Some Body")
    monkeypatch.setenv("DEBEMAIL", "some@example.com")
    assert str(debian.maintainer()) == "Some Body <some@example.com>"
    monkeypatch.delenv("DEBEMAIL")

    def nobody(*command: str) -> str:
        raise ReleaseError("no")

    monkeypatch.setattr(debian, "run", nobody)
    with pytest.raises(ReleaseError, match="set DEBEMAIL"):
        debian.maintainer()
