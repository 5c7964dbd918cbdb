import errno
import logging
import os
import stat
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import derp
from derp.errors import StartError
from derp.files import nodekey
from derp.wire.gojson import JSONFormError
from derp.wire.keys import KeyFormatError, NodePrivate, short_key

# Written by the Go derper 1.102.5 at a first start; the key serves nothing.
GO_FILE = (
    b'{\n\t"PrivateKey": '
    b'"privkey:105eae93c652d3ea2e38350a43b1d304e6f5f95c2e98467d45261999c4f10e44"\n}'
)
GO_PUBLIC = "15f9c134bd00591385c92e3b7325ff3cdae310752ae7be90e71089d9a8eedc52"
DIGITS = "0123456789abcdef" * 4
CURE = "; restore the file, or move it away to have a new key made"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def start_error(path: Path) -> str:
    with pytest.raises(StartError) as caught:
        nodekey.load_or_make(path)
    assert DIGITS[:20] not in "".join(traceback.format_exception(caught.value))
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "derper.key"


def write(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)


# --- the Go derper's file ---


def test_a_file_of_the_go_derper(path: Path):
    write(path, GO_FILE)
    key = nodekey.load_or_make(path)
    assert key.public.hex() == GO_PUBLIC
    assert nodekey.encode(key) == GO_FILE
    assert path.read_bytes() == GO_FILE


@given(st.binary(min_size=32, max_size=32))
def test_encode_and_decode(entropy: bytes):
    key = NodePrivate.generate(entropy)
    data = nodekey.encode(key)
    assert data == b'{\n\t"PrivateKey": "privkey:' + key.raw.hex().encode() + b'"\n}'
    assert nodekey.decode(data).raw == key.raw


@pytest.mark.parametrize(
    "text",
    [
        '{"PrivateKey":"privkey:%s"}',
        '{"privatekey": "privkey:%s"}\n',
        '{"PRIVATEKEY": "privkey:%s", "Comment": [1, {"PrivateKey": 5}]}',
        '{"PrivateKey": "junk", "PrivateKey": "privkey:%s"}',
        '{"PrivateKey": "privkey:%s", "PrivateKey": null}',
    ],
)
def test_whatever_go_accepts(path: Path, text: str):
    write(path, text % DIGITS)
    assert nodekey.load_or_make(path).raw.hex() == DIGITS


# --- the first start ---


def test_made_at_the_first_start(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = tmp_path / "var" / "lib" / "derper" / "derper.key"
    key = nodekey.load_or_make(path)
    assert path.read_bytes() == nodekey.encode(key)
    assert mode(path) == 0o600
    assert [mode(directory) for directory in path.parents[:3]] == [0o700] * 3
    assert names(path.parent) == ["derper.key"]
    assert path.stat().st_nlink == 1
    [record] = caplog.records
    assert record.__dict__["fields"] == {"key": short_key(key.public), "path": str(path)}
    assert key.raw.hex() not in str(record.__dict__)
    before = identity(path)
    assert nodekey.load_or_make(path).raw == key.raw
    assert identity(path) == before


def test_directories_that_exist_keep_their_mode(tmp_path: Path):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o755)
    nodekey.load_or_make(directory / "derper.key")
    assert mode(directory) == 0o755


def test_a_path_without_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    key = nodekey.load_or_make(Path("derper.key"))
    assert nodekey.load_or_make(tmp_path / "derper.key").raw == key.raw


def test_a_generous_umask_opens_nothing(tmp_path: Path):
    before = os.umask(0)
    try:
        nodekey.load_or_make(tmp_path / "new" / "derper.key")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o700
    assert mode(tmp_path / "new" / "derper.key") == 0o600


def no_hard_links(*args: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_loser_takes_the_winners_key(
    path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
):
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)
    make_temporary = tempfile.mkstemp

    def somebody_else_is_faster(**kwargs: Any) -> tuple[int, str]:
        write(path, GO_FILE)
        return make_temporary(**kwargs)

    monkeypatch.setattr(tempfile, "mkstemp", somebody_else_is_faster)
    assert nodekey.load_or_make(path).public.hex() == GO_PUBLIC
    assert path.read_bytes() == GO_FILE
    assert names(path.parent) == ["derper.key"]


def test_made_where_there_are_no_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", no_hard_links)
    key = nodekey.load_or_make(path)
    assert path.read_bytes() == nodekey.encode(key)
    assert mode(path) == 0o600
    assert names(path.parent) == ["derper.key"]


MAKER = """
import pathlib, sys
from derp.files import nodekey
print("ready", flush=True)
sys.stdin.readline()
print(nodekey.load_or_make(pathlib.Path(sys.argv[1])).public.hex())
"""


@pytest.mark.slow
def test_processes_that_start_together_agree(path: Path):
    command = [sys.executable, "-c", MAKER, str(path)]
    environ = os.environ | {"PYTHONPATH": str(Path(derp.__file__).parents[1])}
    pipe = subprocess.PIPE
    makers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ) for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    keys = {maker.communicate(timeout=30)[0] for maker in makers}
    assert keys == {nodekey.load_or_make(path).public.hex() + "\n"}
    assert names(path.parent) == ["derper.key"]


def failing(code: int):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("function", ["fsync", "link", "mkdir"])
def test_a_key_that_can_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str):
    monkeypatch.setattr(os, function, failing(errno.ENOSPC))
    path = tmp_path / "new" / "derper.key"
    want = f"key file {str(path)!r}: can't be made: No space left on device"
    assert start_error(path) == want
    assert not path.exists()
    assert not path.parent.exists() or names(path.parent) == []


# --- files that are refused, and left as they are ---


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "empty"),
        ("\n", "empty"),
        (f"privkey:{DIGITS}", "not JSON (line 1, column 1)"),
        (f'{{"PrivateKey": "privkey:{DIGITS}"', "not JSON (line 1, column 90)"),
        (f'{{"PrivateKey": "privkey:{DIGITS}"}} x', "not JSON (line 1, column 92)"),
        (f'["privkey:{DIGITS}"]', "not a JSON object"),
        (f'"privkey:{DIGITS}"', "not a JSON object"),
        ("null", "has no PrivateKey"),
        ("{}", "has no PrivateKey"),
        ('{"PrivateKey": null}', "has no PrivateKey"),
        (f'{{"Key": "privkey:{DIGITS}"}}', "has no PrivateKey"),
        ('{"PrivateKey": 5}', "PrivateKey is not a string"),
        (f'{{"PrivateKey": ["privkey:{DIGITS}"]}}', "PrivateKey is not a string"),
        ('{"PrivateKey": ""}', "PrivateKey: the key does not begin with privkey:"),
        (f'{{"PrivateKey": "{DIGITS}"}}', "PrivateKey: the key does not begin with privkey:"),
        (
            f'{{"PrivateKey": "nodekey:{DIGITS}"}}',
            "PrivateKey: the key does not begin with privkey:",
        ),
        (
            f'{{"PrivateKey": "privkey:{DIGITS[:-1]}"}}',
            "PrivateKey: the key has 63 hex digits instead of 64",
        ),
        (
            f'{{"PrivateKey": "privkey:{DIGITS[:-1]}g"}}',
            "PrivateKey: the key holds something else than hex digits",
        ),
        (
            f'{{"PrivateKey": "privkey:{"0" * 64}"}}',
            "PrivateKey: the all-zero key is no private key",
        ),
        (f'{{"PrivateKey": "privkey:{DIGITS}"}}'.ljust(65537), "too large for a key file"),
    ],
)
def test_bad_content_is_refused_and_kept(path: Path, data: str, message: str):
    write(path, data)
    before = identity(path)
    assert start_error(path) == f"key file {str(path)!r}: {message}{CURE}"
    assert path.read_text() == data
    assert identity(path) == before
    assert names(path.parent) == ["derper.key"]


@given(st.binary())
def test_any_content(data: bytes):
    with pytest.raises((JSONFormError, KeyFormatError)):
        nodekey.decode(data)


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o601, 0o607, 0o644, 0o666, 0o777])
def test_a_file_that_others_can_use(path: Path, bits: int):
    write(path, GO_FILE, bits)
    assert start_error(path) == (
        f"key file {str(path)!r}: others can use it (mode {bits:04o}); "
        "run chmod 600 on it, or mount it with that mode"
    )
    assert mode(path) == bits


@pytest.mark.parametrize("bits", [0o400, 0o600, 0o640, 0o660])
def test_a_file_of_owner_and_group(path: Path, bits: int):
    write(path, GO_FILE, bits)
    assert nodekey.load_or_make(path).public.hex() == GO_PUBLIC


def test_an_unreadable_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    write(path, GO_FILE)
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    assert start_error(path) == f"key file {str(path)!r}: can't be read: Permission denied"


def test_no_regular_file(tmp_path: Path):
    want = "not a regular file; want the path of a file"
    assert start_error(tmp_path) == f"key file {str(tmp_path)!r}: {want}"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert start_error(pipe) == f"key file {str(pipe)!r}: {want}"
    below = pipe / "derper.key"
    assert start_error(below) == f"key file {str(below)!r}: can't be read: Not a directory"


def test_links(tmp_path: Path, path: Path):
    link = tmp_path / "link"
    link.symlink_to(path)
    assert start_error(link) == f"key file {str(link)!r}: a broken link{CURE}"
    assert not path.exists()
    write(path, GO_FILE, 0o644)
    assert "run chmod 600" in start_error(link)
    path.chmod(0o600)
    assert nodekey.load_or_make(link).public.hex() == GO_PUBLIC


def test_an_odd_name_stays_on_one_line(tmp_path: Path):
    path = tmp_path / "a\nb\udcff"
    write(path, "")
    assert "a\\nb\\udcff" in start_error(path)
