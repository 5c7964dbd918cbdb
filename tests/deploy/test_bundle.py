"""What is put together of wheels, and the one file that has it for several machines."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from release import pyz
from release.bundle import Bundle, digest_of, for_all, glibc_of, merged, pins
from release.project import DEPLOY, ReleaseError
from tests.deploy.files import ROOT


def wheel(folder: Path, name: str, **files: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def test_wheels_of_several_pythons_lie_side_by_side(tmp_path: Path) -> None:
    common = {"some/__init__.py": "x = 1", "some-1.dist-info/METADATA": "Name: some"}
    made = [
        wheel(tmp_path, f"{tag}.whl", **common, **{f"a/b.cpython-{tag}-x86_64-linux-gnu.so": tag})
        for tag in ("311", "312")
    ]
    assert sorted(merged(made)) == [
        "a/b.cpython-311-x86_64-linux-gnu.so",
        "a/b.cpython-312-x86_64-linux-gnu.so",
        "some-1.dist-info/METADATA",
        "some/__init__.py",
    ]


def test_wheels_that_disagree_are_refused(tmp_path: Path) -> None:
    made = [wheel(tmp_path, f"{n}.whl", **{"some.py": f"x = {n}"}) for n in (1, 2)]
    with pytest.raises(ReleaseError, match=r"2\.whl: some\.py is another one"):
        merged(made)


@pytest.mark.parametrize("name", ["some-1.data/scripts/tool", "../some.py", "/some.py"])
def test_what_has_no_place_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReleaseError, match="no place"):
        merged([wheel(tmp_path, "a.whl", **{name: "x"})])


def test_tests_and_what_only_installers_read_is_left_out(tmp_path: Path) -> None:
    names = ["a/_tests/key.pem", "a/tests/x.py", "a-1.dist-info/RECORD", "a-1.dist-info/WHEEL"]
    kept = ["a/testsuite.py", "a-1.dist-info/licenses/LICENSE", "a/py.typed"]
    found = merged([wheel(tmp_path, "a.whl", **dict.fromkeys([*names, "a/x.pyi", *kept], ""))])
    assert sorted(found) == sorted(kept)


def test_the_glibc_that_a_wheel_needs() -> None:
    tags = "manylinux1_x86_64.manylinux_2_28_x86_64.manylinux_2_5_x86_64"
    assert glibc_of(f"websockets-17.4-cp311-cp311-{tags}.whl", "x86_64") == (2, 5)
    assert glibc_of("trio-0.35.0-py3-none-any.whl", "x86_64") == (0, 0)
    for other in ("manylinux_2_17_aarch64", "musllinux_1_2_x86_64", "macosx_11_0_x86_64"):
        with pytest.raises(ReleaseError, match="not for Linux with glibc on x86_64"):
            glibc_of(f"a-1-cp311-cp311-{other}.whl", "x86_64")


MARKED = """\
# A comment.
always==1 \\
    --hash=sha256:01
either==2 ; python_full_version < '3.11.5' \\
    --hash=sha256:02 \\
    --hash=sha256:03
either==4 ; python_full_version >= '3.11.5' \\
    --hash=sha256:04
for-new==5 ; python_version >= '3.13' \\
    --hash=sha256:05
for-old==6 ; python_version < '3.12' \\
    --hash=sha256:06
never==7 ; os_name == 'nt' \\
    --hash=sha256:07
"""


def test_there_is_one_version_for_all_pythons() -> None:
    """That of the oldest; a package that one of them needs is there for all."""
    assert for_all(MARKED) == (
        "always==1 \\\n    --hash=sha256:01\n"
        "either==2 \\\n    --hash=sha256:02 \\\n    --hash=sha256:03\n"
        "for-new==5 \\\n    --hash=sha256:05\n"
        "for-old==6 \\\n    --hash=sha256:06\n"
    )


def test_all_that_is_pinned_is_in_a_bundle() -> None:
    text = (DEPLOY / "requirements.txt").read_text("utf-8")
    names = set(re.findall(r"(?m)^([\w-]+)==", text))
    assert set(re.findall(r"(?m)^([\w-]+)==", pins())) == names
    assert ";" not in pins()


BUNDLES = [
    Bundle("x86_64", {"a.py": b"a", "b.so": b"x"}, (2, 17)),
    Bundle("aarch64", {"a.py": b"a", "b.so": b"y", "c.so": b"z"}, (2, 28)),
]


def test_what_bundles_have_in_common_is_there_once() -> None:
    assert pyz.placed(BUNDLES) == {
        "common/a.py": b"a",
        "x86_64/b.so": b"x",
        "aarch64/b.so": b"y",
        "aarch64/c.so": b"z",
    }


def test_the_same_bundles_make_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        pyz.write(path, BUNDLES, 1_700_000_000)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(io.BytesIO(paths[0].read_bytes())) as archive:
        assert {i.date_time for i in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        stored = [i.filename for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
        index = json.loads(archive.read("bundles.json"))
    # Any Python has to read these, if only to say what it lacks.
    assert stored == ["__main__.py", "unpack.py", "bundles.json"]
    assert index["bundles"]["aarch64"]["glibc"] == [2, 28]
    assert index["bundles"]["x86_64"]["digest"] == BUNDLES[0].digest


def test_the_digest_is_over_names_and_contents() -> None:
    digests = {
        digest_of(files)
        for files in ({"a": b"b"}, {"a": b"c"}, {"ab": b""}, {"a": b"", "b": b""}, {})
    }
    assert len(digests) == 5


def test_the_version_is_in_one_place() -> None:
    """No other file of the project has one that would have to be changed."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in text
    assert 'path = "derp/__init__.py"' in text
